"""Everything that the project changes inside vLLM 0.32 (entry point `vllm.general_plugins`)."""

import multiprocessing
import os
from typing import Any

from microbudget_rl.actors.runtime.process import end_with
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.installation import SET_UP

registered = False
"""Whether vLLM has called `register` in this process."""


def register() -> None:
    """Replace private functions of vLLM on its CPU backend; in `serve.py`, end the engine's process with the server's.

    The server's own death leaves that process alive, and with it the memory of a GPU (vLLM issue 55510).
    """
    global registered
    registered = True
    if multiprocessing.parent_process():
        end_with(os.getppid())
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        import torch
        from vllm.model_executor.models import registry
        from vllm.v1.sample import sampler
        from vllm.v1.sample.ops.topk_topp_sampler import TopKTopPSampler

        from microbudget_rl.actors.rollout import cpu_kernels

        platform: Any = type(current_platform)
        # For the LoRA wrapper vLLM has no setting; methods of the platform hold however vLLM is started.
        platform.get_punica_wrapper = classmethod(lambda _: "microbudget_rl.actors.rollout.cpu_kernels.DenseLoRA")
        platform.get_default_ir_op_priority = classmethod(lambda *_: cpu_kernels.norm_priority())
        cpu_kernels.RotaryEmbedding.forward_cpu = cpu_kernels.rotate  # type: ignore[method-assign]  # vLLM's own stays in cpu_kernels
        cpu_kernels.gdn_attention.cpu_gdn_attention_core = cpu_kernels.gated_delta
        sampler.batched_count_greater_than = cpu_kernels.count_at_least
        drawing: Any = TopKTopPSampler
        drawing.forward_cpu = cpu_kernels.sample
        # vLLM looks at a model's class in another process, so as not to touch the GPU: 9 s at the first start.
        registry._run_in_subprocess = lambda fn: fn()
        # An engine is one rank: torch's fake backend serves its groups, for which gloo opens 13 ports.
        new_group = torch.distributed.new_group
        torch.distributed.new_group = lambda *given, **named: new_group(*given, **named | {"backend": "fake"})
        platform.dist_backend = "fake"


def check_registered() -> None:
    """Raise BadInput if vLLM has not called `register`: it only logs an entry point that it cannot import."""
    if not registered:
        remedy = f"unset VLLM_PLUGINS if it is set, else {SET_UP}"
        raise BadInput(f"vLLM has not loaded the plugin of this project, which is missing or another version: {remedy}")
