"""Durations of the parts of a run: predicted from rates and sizes, corrected by measurements on the machine.

A decoding step reads all weights, and the keys and values of each sample. Learning and prefill multiply matrices.
"""

from dataclasses import dataclass, replace
from typing import Annotated

from pydantic import Field

from actors.models.sizes import DTYPE_BYTES, kv_bytes_per_token, lora_parameters, matmul_parameters
from actors.runtime.placement import Placement
from conf.schema import Config, ShapeConfig
from conf.schema.rollout import LONGEST
from launch.hardware.machine import CORE_BANDWIDTH, Machine


@dataclass(frozen=True)
class Efficiency:
    """Fractions of a machine's rates that the actors reach, and seconds that no rate explains.

    bandwidth, decode: fraction of bandwidth and of FLOP/s while decoding
    learn: fraction of FLOP/s in the learner's passes; prefill reaches the smaller of the two
    step_s: seconds per decoding step for scheduling, sampling and kernel launches
    unit_s: seconds per layer and hidden unit for the work outside matrix products in a token's passes
    """

    bandwidth: float
    decode: float
    learn: float
    step_s: float
    unit_s: float


EFFICIENCY = {
    ("cpu", "bfloat16"): Efficiency(bandwidth=1.0, decode=0.34, learn=0.80, step_s=0.07, unit_s=2.4e-7),
    ("cpu", "float32"): Efficiency(bandwidth=1.0, decode=0.50, learn=0.85, step_s=0.02, unit_s=0.0),
    ("cuda", "bfloat16"): Efficiency(bandwidth=0.60, decode=1.0, learn=0.35, step_s=0.006, unit_s=0.0),
}
"""CPU figures are measured with the bundled model; in bfloat16, on two busy cores with AMX, most of a pass is outside
matrix products. CUDA figures are usual ones for LoRA on models this small, not measured."""

SPEEDS = (0.6, 1.4)
"""Speeds of hardware that has not been measured, over the planned one. Quickstarts on three kinds of server CPUs were
within these bounds. Other projects' logs show learners at 20 % of a GPU's FLOP/s, and a count of this learner's kernels
gives 43 %, where the plan takes 35 %."""

TOGETHER = {False: 0.93, True: 1.2}
"""Work that engine and learner do on one GPU at the same time, over the work of one of them alone, by `run.nvidia_mps`.
Without MPS they take turns and lose the time of switching. With MPS 1.15 to 1.35 can be expected, because memory bounds
decoding and arithmetic bounds learning. Usual figures, not measured."""

FILE_RATE = 1.2e9
"""Bytes per second of adapter files that stay in the host's page cache, written or read."""

OPTIMIZER_TRAFFIC = {"cpu": 150, "cuda": 32}
"""Bytes of memory traffic per trained weight and optimizer step. With a GPU, by count: gradient, master copy and both
moments in fp32 are read, and all but the gradient are written. Without one, measured: it also has the norms."""

SYNC_S = 0.05
"""Seconds that an engine takes to load an adapter, whatever its size. Measured."""

VERIFY_S = 0.002
"""Seconds to verify one response. Measured."""

START_S = {"cpu": 45.0, "cuda": 150.0}
"""Seconds before the first request: imports, weights, engine start, and on a GPU compilation and CUDA graphs."""

FILL = 0.5
"""Mean length of prompts and responses as a fraction of their limits, if it is neither measured nor declared."""

FRESH = 0.5
"""Fraction of a prompt with few-shot examples that differs between problems."""

SPREAD = 0.5
"""Standard deviation of response lengths as a fraction of their mean, if nothing is measured."""

VARIED = 0.5
"""Fraction of groups with a gradient, if nothing is measured. In the others all samples are correct, or all wrong."""


Factor = Annotated[float, Field(ge=0.01, le=1e4)]
"""Measured over predicted seconds of a part, within bounds that no machine exceeds."""

TokenCount = Annotated[float, Field(ge=1, le=LONGEST)]


@dataclass(frozen=True)
class Costs:
    """Seconds of one engine and one learner process, each with its GPU or cores to itself.

    step_s, sample_s: per decoding step, and in addition per sample in it
    prefill_s: per prompt token, once per group
    learn_s: per input token of a batch, for the passes of all optimizer steps
    update_s: per batch, for its optimizer steps and for publishing the adapter
    sync_s: per adapter version that an engine loads
    verify_s: per response in one reward worker
    start_s: until the engine takes the first request
    """

    step_s: float
    sample_s: float
    prefill_s: float
    learn_s: float
    update_s: float
    sync_s: float
    verify_s: float
    start_s: float

    def decode_s(self, samples: float) -> float:
        """Return the seconds of a decoding step, in which each sample gains a token."""
        return self.step_s + samples * self.sample_s


@dataclass(frozen=True)
class Workload:
    """Lengths of a run's samples, and the fraction of groups with a gradient.

    prompt, response: mean length, tokens
    fresh: tokens of a prompt after the part that all prompts share; engines and learner compute only these
    spread: standard deviation of the response length as a fraction of its mean
    varied: fraction of groups whose samples earn different rewards
    recipe: that of the run that was measured, see `launch.plan.measurements`
    by: who measured it, if it was not a run
    """

    prompt: TokenCount
    fresh: Annotated[float, Field(ge=0, le=LONGEST)]
    response: TokenCount
    spread: Annotated[float, Field(ge=0, le=1e3)]
    varied: Annotated[float, Field(ge=0.01, le=1)]
    recipe: str = ""
    by: str = ""


@dataclass(frozen=True)
class Calibration:
    """Measured over predicted seconds on this machine, a factor for each part of Costs.

    decode: factor of decoding and prefill
    start_s, workload: measured values; None without a measurement of this recipe
    of: a description of the measurement; empty if there is none
    """

    decode: Factor = 1.0
    learn: Factor = 1.0
    update: Factor = 1.0
    sync: Factor = 1.0
    verify: Factor = 1.0
    start_s: Annotated[float, Field(ge=0, le=86400)] | None = None
    workload: Workload | None = None
    of: str = ""

    def correct(self, costs: Costs) -> Costs:
        factors = dict.fromkeys(("step", "sample", "prefill"), self.decode)
        factors |= {part: getattr(self, part) for part in ("learn", "update", "sync", "verify")}
        corrected = {f"{part}_s": getattr(costs, f"{part}_s") * factor for part, factor in factors.items()}
        return replace(costs, **corrected, start_s=costs.start_s if self.start_s is None else self.start_s)


UNMEASURED = Calibration()


def assumed_workload(config: Config) -> Workload:
    """Return the workload that a plan assumes before any measurement."""
    rollout = config.rollout
    prompt = rollout.typical_prompt_tokens or FILL * rollout.max_prompt_tokens
    return Workload(
        prompt=prompt,
        fresh=FRESH * prompt if config.data.few_shot else prompt,
        response=rollout.typical_response_tokens or FILL * rollout.max_response_tokens,
        spread=SPREAD,
        varied=VARIED,
    )


def live_context(workload: Workload) -> float:
    """Return the mean number of tokens, prompt included, before a sampled token. That is more than half of a mean
    response, because long responses have more tokens.
    """
    return workload.prompt + workload.response * (1 + workload.spread**2) / 2


def costs_of(
    config: Config, shape: ShapeConfig, machine: Machine, placement: Placement, workload: Workload
) -> Costs | None:
    """Predict seconds from rates and sizes; None if the GPU's rate in the model's dtype is not known or zero.

    Learning takes per token and step, with N frozen and L trained weights: forward 2 (N + L) operations, twice if
    activations are computed again; backward 2 (N + L) for the activations and 2 L for the adapter. A KL term adds the
    base model's 2 N once. Attention adds 4 · heads · head_dim · layers per token of context to each pass.
    """
    dtype, cuda = config.model.dtype, placement.device == "cuda"
    rate = machine.rates.get(dtype)
    if not (machine.bandwidth and rate):
        return None
    reached = EFFICIENCY[placement.device, dtype]
    engine, learner = placement.rollouts[0], placement.learners[0]
    engine_units, learner_units = (1, 1) if cuda else (len(engine.cores), len(learner.cores))
    frozen = matmul_parameters(shape)
    trained = lora_parameters(shape, config.lora.rank, config.lora.target_modules)
    context, size = live_context(workload), DTYPE_BYTES[dtype]

    bandwidth = machine.bandwidth * engine_units * reached.bandwidth
    decode_flops = rate * engine_units * reached.decode
    learn_flops = rate * learner_units * reached.learn
    attention = 4 * shape.num_attention_heads * shape.head_dim * shape.num_hidden_layers * context
    forward = 2 * (frozen + trained) + attention
    backward = forward + 2 * trained + attention
    other_s = shape.num_hidden_layers * shape.hidden_size * reached.unit_s / 3  # per forward pass; a backward takes two
    forwards = 2 if config.learner.recomputes else 1
    steps, kl = config.algorithm.steps_per_batch, bool(config.algorithm.kl)
    operations = steps * (forwards * forward + backward) + kl * (2 * frozen + attention)
    adapter_s = trained * size / FILE_RATE
    on_host = not cuda or config.learner.offload == "cpu"
    memory_rate = CORE_BANDWIDTH * max(learner.threads, 1) if on_host else machine.bandwidth
    adam_s = trained / len(placement.learners) * OPTIMIZER_TRAFFIC[placement.device] / memory_rate
    return Costs(
        step_s=reached.step_s + (frozen + trained) * size / bandwidth,
        sample_s=2 * (frozen + trained) / decode_flops + context * kv_bytes_per_token(shape, dtype) / bandwidth,
        prefill_s=forward / (rate * engine_units * min(reached.learn, reached.decode)),
        learn_s=operations / learn_flops + (steps * (forwards + 2) + kl) * other_s / learner_units,
        update_s=steps * adam_s + adapter_s,
        sync_s=SYNC_S + adapter_s,
        verify_s=VERIFY_S,
        start_s=START_S[placement.device],
    )
