"""How long the parts of a run take: predicted from rates and sizes, corrected by what was measured on the machine.

Decoding reads all weights in every step, and each sample's keys and values. Learning and prefill multiply matrices.
"""

from dataclasses import dataclass, replace

from actors.models.sizes import (
    CHECKPOINT_BYTES,
    DTYPE_BYTES,
    kv_bytes_per_token,
    lora_parameters,
    matmul_parameters,
    recomputes,
)
from actors.runtime.placement import Placement
from conf.schema import Config, ShapeConfig
from launch.hardware.machine import CORE_BANDWIDTH, Machine


@dataclass(frozen=True)
class Efficiency:
    """Shares of a machine's rates that are reached, and seconds that no rate explains.

    bandwidth, decode: of bandwidth and FLOP/s while decoding
    learn: of FLOP/s in the learner's passes, in prefill and in the adapter check
    step_s: of a decoding step for scheduling, sampling and kernel launches
    unit_s: of a token's forward and backward pass that multiply nothing, per layer and hidden unit
    """

    bandwidth: float
    decode: float
    learn: float
    step_s: float
    unit_s: float


EFFICIENCY = {
    ("cpu", "bfloat16"): Efficiency(bandwidth=1.0, decode=0.15, learn=0.80, step_s=0.02, unit_s=1.6e-7),
    ("cpu", "float32"): Efficiency(bandwidth=1.0, decode=0.50, learn=0.85, step_s=0.02, unit_s=0.0),
    ("cuda", "bfloat16"): Efficiency(bandwidth=0.60, decode=1.0, learn=0.35, step_s=0.006, unit_s=0.0),
}
"""CPU: measured on the embedded model, bfloat16 on cores with AMX, where most of a pass multiplies nothing. CUDA: not
measured; usual figures for models this small under LoRA, everything in one share."""

TOGETHER = {False: 0.93, True: 1.2}
"""What engine and learner on one card do at the same time, over what one of them alone would do: in turn, with what it
takes to switch; through MPS, of 1.15 to 1.35 that decoding, bound by memory, and learning, bound by arithmetic, should
give. Usual figures, not measured."""

LEARN_RANGE = (0.20, 0.43)
"""Shares of a card's FLOP/s that the learner may reach: what others' logs show of LoRA on models of less than 2 billion
weights, and what counting this learner's kernels gives at best."""

DISK_RATE = 200e6
"""Bytes/s at which checkpoints are written and synced: measured on a virtual disk."""

FILE_RATE = 1.2e9
"""Bytes/s at which adapters are written to files that stay in the host's memory, and read from them."""

COPIED_BYTES = 6
COPY_RATE = 4e9
"""Of an optimizer step in host memory: bytes of a trained weight that go to and from the card (its gradient in fp32,
the weight in bfloat16), and bytes/s of such copies where memory is not pinned: a usual figure, not measured."""

NETWORK_RATE = 10e9
"""Bytes/s between learner ranks: PCIe, or a network of 100 Gbit/s."""

OPTIMIZER_TRAFFIC = 32
"""Bytes of memory traffic per trained weight and optimizer step: gradient, master copy and both moments in fp32 are
read, and all but the gradient are written."""

SWAP_S = 0.05
"""Seconds to load an adapter of any size: measured."""

VERIFY_S = 0.002
"""Seconds of a verdict: measured."""

START_S = {"cpu": 60.0, "cuda": 150.0}
"""Seconds before the first request: imports, weights, engine start, and on a card compilation and CUDA graphs."""

FILL = 0.5
"""Length of prompts and responses as a share of their limits, where it was neither measured nor declared."""

FRESH = 0.5
"""Share of a prompt with examples that differs between problems."""

SPREAD = 0.5
"""Standard deviation of response lengths as a share of their mean, where nothing was measured."""

VARIED = 0.5
"""Share of groups with something to learn from, where nothing was measured. The samples of the others are all right or
all wrong."""


@dataclass(frozen=True)
class Costs:
    """Seconds of one engine and one learner rank, each with its processor to itself.

    step_s, sample_s: a decoding step, and more for each sample in it
    prefill_s: a prompt token, once a group
    learn_s: an input token of a batch, the passes of all optimizer steps together
    score_s: an input token of the adapter check
    update_s: the optimizer steps of a batch, publication included
    swap_s: loading an adapter version
    verify_s: one answer in one worker
    start_s: until the first request is taken
    """

    step_s: float
    sample_s: float
    prefill_s: float
    learn_s: float
    score_s: float
    update_s: float
    swap_s: float
    verify_s: float
    checkpoint_s: float
    start_s: float

    def decode_s(self, samples: float) -> float:
        """Return the seconds in which each of so many samples gains a token."""
        return self.step_s + samples * self.sample_s


@dataclass(frozen=True)
class Workload:
    """What the samples of a run are like.

    prompt, response: mean length, tokens
    fresh: tokens of a prompt that no other prompt begins with; engines and learner compute only these
    spread: standard deviation of the response length as a share of its mean
    varied: share of groups whose samples do not all earn the same
    """

    prompt: float
    fresh: float
    response: float
    spread: float
    varied: float


@dataclass(frozen=True)
class Calibration:
    """Factors by which the seconds measured on this machine differ from the predicted ones, named as in Costs.

    decode: of decoding and prefill
    start_s, workload: as measured; None if they were not, or with another recipe
    together: see `estimate`; None if it was not measured
    of: what was measured, in words; empty if nothing was
    """

    decode: float = 1.0
    learn: float = 1.0
    update: float = 1.0
    score: float = 1.0
    swap: float = 1.0
    verify: float = 1.0
    checkpoint: float = 1.0
    start_s: float | None = None
    workload: Workload | None = None
    together: float | None = None
    of: str = ""

    def correct(self, costs: Costs) -> Costs:
        factors = dict.fromkeys(("step", "sample", "prefill"), self.decode)
        factors |= {name: getattr(self, name) for name in ("learn", "score", "update", "swap", "verify", "checkpoint")}
        corrected = {f"{name}_s": getattr(costs, f"{name}_s") * factor for name, factor in factors.items()}
        return replace(costs, **corrected, start_s=costs.start_s if self.start_s is None else self.start_s)


UNMEASURED = Calibration()


def assumed_workload(config: Config) -> Workload:
    """Return what samples are taken to be like before anything was measured."""
    rollout = config.rollout
    prompt = rollout.typical_prompt_tokens or FILL * rollout.max_prompt_tokens
    return Workload(
        prompt=prompt,
        fresh=FRESH * prompt if config.data.examples else prompt,
        response=rollout.typical_response_tokens or FILL * rollout.max_response_tokens,
        spread=SPREAD,
        varied=VARIED,
    )


def live_context(workload: Workload) -> float:
    """Return the mean tokens, prompt included, before a token that is drawn: more than half an answer, since long ones
    are met more often.
    """
    return workload.prompt + workload.response * (1 + workload.spread**2) / 2


def costs_of(
    config: Config, shape: ShapeConfig, machine: Machine, placement: Placement, workload: Workload
) -> Costs | None:
    """Predict seconds from rates and sizes; None if the card's rate in the model's dtype is not known or zero.

    Learning takes per token and step, with N frozen and L trained weights: forward 2 (N + L) operations, twice if
    activations are computed again; backward 2 (N + L) for the activations and 2 L for the adapter. A KL term adds the
    base model's 2 N once. Attention adds 4 · heads · head_dim · layers per token of context to each of them.
    """
    dtype, cuda = config.model.dtype, placement.device == "cuda"
    rate = machine.rates.get(dtype)
    if not (machine.bandwidth and rate):
        return None
    reached = EFFICIENCY[placement.device, dtype]
    rollout, learner, ranks = placement.rollouts[0], placement.learners[0], len(placement.learners)
    engine_units, learner_units = (1, 1) if cuda else (len(rollout.cores), len(learner.cores))
    size, frozen = DTYPE_BYTES[dtype], matmul_parameters(shape)
    trained = lora_parameters(shape, config.lora.rank, config.lora.target_modules)
    context = live_context(workload)
    attention = 4 * shape.heads * shape.head_dim * shape.layers * context

    bandwidth = machine.bandwidth * engine_units * reached.bandwidth
    decode_flops = rate * engine_units * reached.decode
    learn_flops = rate * learner_units * reached.learn
    forward = 2 * (frozen + trained) + attention
    forward_s = shape.layers * shape.hidden * reached.unit_s / 3  # a backward pass takes two thirds
    again = recomputes(config, shape, machine.gpu_memory * learner.memory)
    steps, kl = config.algorithm.steps_per_batch, bool(config.algorithm.kl)
    step = forward * (3 if again else 2) + 2 * trained + attention
    work = steps * step + kl * (2 * frozen + attention)

    on_host = not cuda or config.learner.offload == "cpu"
    optimizer_rate = CORE_BANDWIDTH * max(learner.threads, 1) if on_host else machine.bandwidth
    optimizer_s = trained / ranks * OPTIMIZER_TRAFFIC / optimizer_rate
    if cuda and on_host:
        optimizer_s += trained / ranks * COPIED_BYTES / COPY_RATE
    gather_s = 2 * 4 * trained / NETWORK_RATE if ranks > 1 else 0.0
    adapter_s = trained * size / FILE_RATE
    return Costs(
        step_s=reached.step_s + (frozen + trained) * size / bandwidth,
        sample_s=context * kv_bytes_per_token(shape, dtype) / bandwidth + 2 * (frozen + trained) / decode_flops,
        prefill_s=(forward / (rate * reached.learn) + forward_s) / engine_units,
        learn_s=work / learn_flops + (steps * (4 if again else 3) + kl) * forward_s / learner_units,
        score_s=2 * (forward / learn_flops + forward_s / learner_units),  # under the policy and under the base model
        update_s=steps * (optimizer_s + gather_s) + adapter_s,
        swap_s=SWAP_S + adapter_s,
        verify_s=VERIFY_S,
        checkpoint_s=trained * CHECKPOINT_BYTES / DISK_RATE,
        start_s=START_S[placement.device],
    )
