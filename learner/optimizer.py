"""AdamW by DeepSpeed's ZeRO-1, with its state in host memory or on the GPU.

Stage 2 would also divide the gradients among the processes, but it reduces them in every backward pass, in autograd's
order: all processes would need the same number of passes over graphs of one shape. Stage 1 reduces once per step,
weight by weight, whatever each process has computed.
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

from microbudget_rl.conf.schema import LearnerConfig
from microbudget_rl.learner.cpu_adam import cpu_adam_available, replay_steps
from microbudget_rl.learner.distributed import World

BUCKET_ELEMENTS = 50_000_000
"""Gradient elements reduced at a time. DeepSpeed's default of 5e8 would reserve 1 GB of GPU memory for the bucket."""

MOMENTS = ("exp_avg", "exp_avg_sq")

SHM_COMM = "deepspeed_shm_comm"
"""Name of DeepSpeed's shared-memory collective; its builder class exists on the CPU only."""


class ZeroOptimizer:
    """AdamW over a module's trainable parameters: `forward` and `backward` any number of times, then `step` once.

    Gradients accumulate in fp32, whatever the module's dtype (bfloat16 or float32), and are summed over the processes,
    each of which keeps its part of the optimizer's state. All processes construct it and call `step`, `state` and
    `set_state` together, and begin with the weights of the first.
    """

    def __init__(self, module: nn.Module, dtype: torch.dtype, config: LearnerConfig, world: World) -> None:
        logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
        parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self._offload = config.offload == "cpu"
        self._world = world
        optimizer = adamw(parameters, config)
        world.join("nccl" if parameters[0].is_cuda else "gloo")
        os.environ.setdefault("LOCAL_RANK", "0")  # DeepSpeed insists on it
        deepspeed.ops.__compatible_ops__[SHM_COMM] = False  # else it is compiled for minutes; only inference uses it
        deepspeed.init_distributed()
        self._deepspeed, *_ = deepspeed.initialize(
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
                    # Pinned memory is allocated in powers of two: gigabytes at rank 256, to save a fraction of a second
                    # per update.
                    "offload_optimizer": {"device": config.offload, "pin_memory": False},
                    "reduce_bucket_size": BUCKET_ELEMENTS,
                    "overlap_comm": False,
                },
                "zero_force_ds_cpu_optimizer": False,
            },
        )
        self._zero = self._deepspeed.optimizer
        self._adam = self._zero.optimizer
        self._create_state()

    def forward(self, *inputs: Any) -> Any:
        """Run the module under DeepSpeed."""
        return self._deepspeed(*inputs)

    def backward(self, loss: Tensor) -> None:
        self._deepspeed.backward(loss, scale_wrt_gas=False)

    def backward_nothing(self) -> None:
        """Run the backward pass of a process that has no sample: a step needs one."""
        self.backward(torch.stack([parameter.sum() for _, parameter in self._trainable()]).sum() * 0.0)

    def step(self, learning_rate: float) -> float:
        """Sum the gradients of all processes, clip, step, and clear them; return the norm before clipping.

        A gradient that is not finite is cleared without changing weights or state; its norm is infinite.
        """
        for group in self._adam.param_groups:
            group["lr"] = learning_rate
        self._deepspeed.step()
        norm = float(self._deepspeed.get_global_grad_norm())
        if not math.isfinite(norm) and self._offload:
            # DeepSpeed 0.19.8 keeps these in bfloat16, and no later sum would be finite.
            self._zero.averaged_gradients = dict.fromkeys(self._zero.averaged_gradients)
        return norm

    def discard(self) -> None:
        """Discard the gradients of an abandoned batch."""
        self._zero.zero_grad(set_to_none=True)

    @property
    def shapes(self) -> dict[str, torch.Size]:
        """Shapes of the tensors that `state` returns, by name."""
        return {f"{name}.{part}": p.shape for name, p in self._trainable() for part in ("master", *MOMENTS)}

    def state(self) -> dict[str, Tensor]:
        """Return fp32 weights and Adam's moments, as NAME.master, NAME.exp_avg, NAME.exp_avg_sq of each parameter.

        Only the first process gets them: they are gigabytes.
        """
        state = dict[str, Tensor]()
        for name, parameter in self._trainable():
            parts = {"master": safe_get_full_fp32_param(parameter)}
            parts |= {moment: safe_get_full_optimizer_state(parameter, moment) for moment in MOMENTS}
            if self._world.leads:
                state |= {f"{name}.{part}": tensor.cpu() for part, tensor in parts.items()}
        return state

    def set_state(self, state: dict[str, Tensor], steps: int) -> None:
        """Continue from a result of `state` after `steps` steps; all processes but the first pass an empty dict."""
        self.discard()
        for name, parameter in self._trainable():
            master = self._world.spread(state.get(f"{name}.master"), parameter.data)
            safe_set_full_fp32_param(parameter, master)
            parameter.data.copy_(master)
            for moment in MOMENTS:
                whole = self._world.spread(state.get(f"{name}.{moment}"), parameter.data)
                safe_set_full_optimizer_state(parameter, whole, moment)
        self._set_steps(steps)

    def begin_anew(self) -> None:
        """Set the moments and the number of steps to zero; the weights stay."""
        for flat in self._flat_parameters():
            for moment in MOMENTS:
                self._adam.state[flat][moment].zero_()
        self._set_steps(0)

    def _trainable(self) -> Iterator[tuple[str, nn.Parameter]]:
        return ((name, p) for name, p in self._deepspeed.module.named_parameters() if p.requires_grad)

    def _flat_parameters(self) -> Iterator[Tensor]:
        return (flat for group in self._adam.param_groups for flat in group["params"])

    def _create_state(self) -> None:
        """Create the state as zeros, so that it can be read and set before the first step."""
        for flat in self._flat_parameters():
            self._adam.state[flat] = {moment: torch.zeros_like(flat.data) for moment in MOMENTS}
        self._set_steps(0)
        self._zero._lazy_init_hp_params_optimizer_state()  # private (0.19.8): the safe_… functions read through it

    def _set_steps(self, steps: int) -> None:
        cpu_adam = isinstance(self._adam, deepspeed.ops.adam.DeepSpeedCPUAdam)
        for flat in self._flat_parameters():
            self._adam.state[flat]["step"] = steps if cpu_adam else torch.tensor(float(steps))
        if cpu_adam:
            replay_steps(self._adam, steps)


def adamw(parameters: list[nn.Parameter], config: LearnerConfig) -> torch.optim.Optimizer:
    """Return AdamW by its settings: DeepSpeed's for offloaded state, if this CPU has it, else torch's."""
    settings: dict[str, Any] = {
        "lr": config.learning_rate,
        "betas": (config.beta1, config.beta2),
        "eps": 1e-8,
        "weight_decay": config.weight_decay,
    }
    if config.offload == "cpu" and cpu_adam_available():
        return deepspeed.ops.adam.DeepSpeedCPUAdam(parameters, adamw_mode=True, **settings)
    return torch.optim.AdamW(parameters, **settings)
