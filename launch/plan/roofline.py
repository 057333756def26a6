"""What the parts of a run take by the machine's rates and the model's sizes, before anything is measured.

Decoding reads all weights in every step and each sample's keys and values; learning and prefill multiply. What of the
rates is reached are the efficiencies below; a run measures how far they are off (`launch.plan.calibration`).
"""

from dataclasses import dataclass

from actors.runtime.placement import Placement
from conf.schema import Config, ShapeConfig
from conf.sizes import (
    CHECKPOINT_BYTES,
    DTYPE_BYTES,
    kv_bytes_per_token,
    lora_parameters,
    matmul_parameters,
    offloads,
    recomputes,
)
from launch.plan.costs import Costs, Workload
from launch.plan.machine import CORE_BANDWIDTH, Machine


@dataclass(frozen=True)
class Efficiency:
    """Shares of the machine's rates: of its bandwidth while decoding, of its FLOP/s while decoding and while learning
    (prefill and the canary's check included). step_s: of a decoding step whatever the model: scheduling, sampling,
    launching kernels. unit_s: of a token's forward and backward pass through one layer, for each of its hidden units,
    whatever the rank: attention, normalisation, copies.
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
"""CPU: measured on the embedded model, bfloat16 on cores with AMX, where most of a pass is no multiplication. CUDA: not
measured; usual figures for models this small under LoRA, all in one share, as those of float32."""

DISK_RATE = 200e6
"""Bytes/s at which adapters and checkpoints are written, synced and read back, measured on a virtual disk."""

NETWORK_RATE = 10e9
"""Bytes/s between learner ranks: PCIe, or a network of 100 Gbit/s."""

OPTIMIZER_TRAFFIC = 32
"""Bytes of memory traffic per trained weight and optimizer step: gradient, master copy and both moments in fp32, read,
and all but the gradient written."""

SWAP_S = 0.05
"""Of loading an adapter, whatever its size: measured."""

VERIFY_S = 0.002
"""A verdict, measured."""

START_S = {"cpu": 60.0, "cuda": 150.0}
"""Before the first request: imports, weights, engine start, on a card compilation and CUDA graphs besides."""

FILL = 0.5
"""How full of its limits a sample is taken to be where nothing was measured or declared."""

FRESH = 0.5
"""Share of a prompt that shows examples which is not the same in all prompts."""

SPREAD = 0.5
"""Of response lengths, where nothing was measured."""

VARIED = 0.5
"""Share of groups with something to learn from, where nothing was measured: at most problems some groups are all right
or all wrong."""


def workload_of(config: Config) -> Workload:
    """What samples are taken to be like where nothing was measured."""
    rollout = config.rollout
    prompt = rollout.typical_prompt_tokens or FILL * rollout.max_prompt_tokens
    return Workload(
        prompt=prompt,
        fresh=FRESH * prompt if config.data.examples else prompt,
        response=rollout.typical_response_tokens or FILL * rollout.max_response_tokens,
        spread=SPREAD,
        varied=VARIED,
    )


def costs_of(
    config: Config, shape: ShapeConfig, machine: Machine, placement: Placement, workload: Workload
) -> Costs | None:
    """Seconds by rates and sizes; None for a card whose rates are not known, or that cannot compute in the dtype.

    Operations a token and step of learning: forward 2 (N + L), twice if activations are computed again, backward
    2 (N + L) for the activations and 2 L for the adapter, with N frozen and L trained weights; once 2 N for the base
    model if KL is in the loss. Attention adds 4 · heads · head_dim · layers for each token of context, as often.
    """
    dtype, cuda = config.model.dtype, placement.device == "cuda"
    rate = machine.rates.get(dtype)
    if not (machine.bandwidth and rate):
        return None
    reached = EFFICIENCY[placement.device, dtype]
    rollout, learner = placement.rollouts[0], placement.learners[0]
    engine_units, learner_units = (1, 1) if cuda else (len(rollout.cores), len(learner.cores))
    size, frozen = DTYPE_BYTES[dtype], matmul_parameters(shape)
    trained = lora_parameters(shape, config.lora.rank, config.lora.target_modules)
    context = workload.prompt + workload.response / 2
    attention = 4 * shape.heads * shape.head_dim * shape.layers * context

    bandwidth = machine.bandwidth * engine_units * reached.bandwidth
    decode_flops = rate * engine_units * reached.decode
    learn_flops = rate * learner_units * reached.learn
    forward = 2 * (frozen + trained) + attention
    again = recomputes(config, shape, machine.gpu_memory * learner.memory)
    step = forward * (3 if again else 2) + 2 * trained + attention
    steps, kl = config.algorithm.steps_per_batch, bool(config.algorithm.kl)
    work = steps * step + kl * (2 * frozen + attention)
    forward_s = shape.layers * shape.hidden * reached.unit_s / 3  # a backward pass is two of them

    ranks = len(placement.learners)
    on_host = not cuda or offloads(config, shape, ranks * machine.gpu_memory * learner.memory)
    optimizer_rate = CORE_BANDWIDTH * max(learner.threads, 1) if on_host else machine.bandwidth
    optimizer_s = trained / ranks * OPTIMIZER_TRAFFIC / optimizer_rate
    gather_s = 2 * 4 * trained / NETWORK_RATE if ranks > 1 else 0.0
    adapter_s = trained * size / DISK_RATE
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
