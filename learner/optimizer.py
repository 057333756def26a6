"""DeepSpeed as this project uses it: ZeRO-1, its optimizer and fp32 master weights in host memory or on the card.

Stage 2 would also divide the gradients among the ranks, but it reduces them in every backward pass, in the order in
which autograd finds them: all ranks would need equally many passes over graphs of one shape. Stage 1 reduces once a
step, weight by weight, whatever each rank has computed.
"""

import logging
import math
import os
from collections.abc import Iterator
from typing import Any

import deepspeed
import torch
from deepspeed.utils import (
    safe_get_full_fp32_param,
    safe_get_full_optimizer_state,
    safe_set_full_fp32_param,
    safe_set_full_optimizer_state,
)
from torch import Tensor, nn

from conf.schema import LearnerConfig
from learner.distributed import ALONE, Ranks
from learner.native import cpu_adam_available

BUCKET_ELEMENTS = 50_000_000
"""Gradient elements reduced at a time. DeepSpeed's default of 5e8 would reserve 1 GB of the card for the bucket."""

MOMENTS = ("exp_avg", "exp_avg_sq")


class ZeroOptimizer:
    """AdamW over a module's trainable parameters: `backward` any number of times, then `step` once.

    Gradients accumulate in fp32, whatever the module's dtype (bfloat16 or float32), and are summed over the ranks.
    Each rank keeps its part of the optimizer's state, which exists from the start, as zeros, so that it can be read and
    set before the first step. offload: keep it in host memory. All ranks construct, `step` and ask for `state`
    together, and begin with the weights of the first.
    """

    def __init__(
        self, module: nn.Module, dtype: torch.dtype, config: LearnerConfig, offload: bool = True, ranks: Ranks = ALONE
    ) -> None:
        logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
        parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self._offload = offload
        optimizer = _adamw(parameters, config, offload)
        ranks.join("nccl" if parameters[0].is_cuda else "gloo")
        os.environ.setdefault("LOCAL_RANK", "0")  # DeepSpeed insists on it
        deepspeed.init_distributed()
        self.engine, *_ = deepspeed.initialize(
            model=module,
            model_parameters=parameters,
            optimizer=optimizer,
            config={
                "train_micro_batch_size_per_gpu": 1,
                "managed_gradient_accumulation": False,
                "gradient_clipping": config.max_grad_norm,
                "gradient_allreduce_op": "sum",
                "communication_data_type": "fp32",
                "bf16": {"enabled": dtype == torch.bfloat16},
                "data_types": {"grad_accum_dtype": "fp32"},
                "zero_optimization": {
                    "stage": 1,
                    # Pinned memory comes in powers of two: at rank 256 gigabytes, for a fraction of a second an update.
                    "offload_optimizer": {"device": "cpu" if offload else "none", "pin_memory": False},
                    "reduce_bucket_size": BUCKET_ELEMENTS,
                    "overlap_comm": False,
                },
                "zero_force_ds_cpu_optimizer": False,
            },
        )
        self._zero = self.engine.optimizer
        self._adam = self._zero.optimizer
        self._create_state()

    def backward(self, loss: Tensor) -> None:
        self.engine.backward(loss, scale_wrt_gas=False)

    def pass_by(self) -> None:
        """A backward pass of nothing, for a rank that has no other before a step."""
        self.backward(torch.stack([parameter.sum() for _, parameter in self._trainable()]).sum() * 0.0)

    def step(self, learning_rate: float) -> float:
        """Sum the ranks' gradients, clip, step, and clear them; the gradient's norm before clipping.

        A gradient that is not finite leaves weights and state as they are and is cleared too; its norm is infinite.
        """
        for group in self._adam.param_groups:
            group["lr"] = learning_rate
        self.engine.step()
        norm = float(self.engine.get_global_grad_norm())
        if not math.isfinite(norm) and self._offload:
            # DeepSpeed 0.19.8 keeps these in bfloat16, and every later sum would be as little finite.
            self._zero.averaged_gradients = dict.fromkeys(self._zero.averaged_gradients)
        return norm

    def discard(self) -> None:
        """Forget the gradients of an abandoned batch."""
        self._zero.zero_grad(set_to_none=True)

    def shapes(self) -> dict[str, torch.Size]:
        """Names and shapes of what `state` returns."""
        return {
            f"{name}.{part}": parameter.shape for name, parameter in self._trainable() for part in ("master", *MOMENTS)
        }

    def state(self) -> dict[str, Tensor]:
        """fp32 master weights and Adam moments, as NAME.master, NAME.exp_avg, NAME.exp_avg_sq of each parameter."""
        state = {}
        for name, parameter in self._trainable():
            state[f"{name}.master"] = safe_get_full_fp32_param(parameter).cpu()
            for moment in MOMENTS:
                state[f"{name}.{moment}"] = safe_get_full_optimizer_state(parameter, moment).cpu()
        return state

    def set_state(self, state: dict[str, Tensor], steps: int) -> None:
        """Continue from what `state` returned after so many steps; weights in the module's dtype follow the masters."""
        self.discard()
        for name, parameter in self._trainable():
            safe_set_full_fp32_param(parameter, state[f"{name}.master"])
            parameter.data.copy_(state[f"{name}.master"])
            for moment in MOMENTS:
                safe_set_full_optimizer_state(parameter, state[f"{name}.{moment}"], moment)
        self._set_steps(steps)

    def _trainable(self) -> Iterator[tuple[str, nn.Parameter]]:
        return ((name, p) for name, p in self.engine.module.named_parameters() if p.requires_grad)

    def _flat_parameters(self) -> Iterator[Tensor]:
        return (flat for group in self._adam.param_groups for flat in group["params"])

    def _create_state(self) -> None:
        for flat in self._flat_parameters():
            self._adam.state[flat] = {moment: torch.zeros_like(flat.data) for moment in MOMENTS}
        self._set_steps(0)
        self._zero._lazy_init_hp_params_optimizer_state()  # the safe_…_optimizer_state functions read through this

    def _set_steps(self, steps: int) -> None:
        cpu_adam = isinstance(self._adam, deepspeed.ops.adam.DeepSpeedCPUAdam)
        for flat in self._flat_parameters():
            self._adam.state[flat]["step"] = steps if cpu_adam else torch.tensor(float(steps))
        if cpu_adam:
            _replay_steps(self._adam, steps)


def _adamw(parameters: list[nn.Parameter], config: LearnerConfig, offload: bool) -> torch.optim.Optimizer:
    settings: dict[str, Any] = {
        "lr": config.learning_rate,
        "betas": (config.beta1, config.beta2),
        "eps": 1e-8,
        "weight_decay": config.weight_decay,
    }
    if offload and cpu_adam_available():
        return deepspeed.ops.adam.DeepSpeedCPUAdam(parameters, adamw_mode=True, **settings)
    return torch.optim.AdamW(parameters, **settings)


def _replay_steps(adam: "deepspeed.ops.adam.DeepSpeedCPUAdam", steps: int) -> None:
    """Count the compiled optimizer up to `steps` on a dummy weight.

    It keeps β^step as a running product, but computes a power when the count jumps: the last bits differ, and a
    restored run would not repeat an uninterrupted one.
    """
    group = adam.param_groups[0]
    weight, gradient, first, second = torch.zeros(4, 1).unbind()
    for step in range(1, steps + 1):
        adam.ds_opt_adam.adam_update(
            adam.opt_id, step, 0.0, *group["betas"], group["eps"], 0.0, True, weight, gradient, first, second
        )
