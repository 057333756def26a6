"""What the project adds to every vLLM process (entry point `vllm.general_plugins`)."""

import multiprocessing
import os
import signal
import threading
from multiprocessing.connection import wait
from typing import Any


def register() -> None:
    """On the CPU backend compute LoRA as dense matrix products, norms with vLLM's compiled kernel and ranks without a
    compiler, look at a model's class in this process, and open no port for groups of one rank. End with the process
    that owns the engine.
    """
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        import torch
        from vllm.model_executor.models import registry
        from vllm.v1.sample import sampler

        from actors.rollout import cpu_kernels

        platform: Any = type(current_platform)
        # By methods of the platform, which hold however vLLM is started. For the wrapper vLLM 0.32 has no setting.
        platform.get_punica_wrapper = classmethod(lambda _: "actors.rollout.cpu_kernels.DenseLoRA")
        platform.get_default_ir_op_priority = classmethod(lambda *_: cpu_kernels.norm_priority())
        sampler.batched_count_greater_than = cpu_kernels.count_at_least
        # vLLM does this in another process, so as not to touch the card; that takes 9 s the first time on a machine.
        registry._run_in_subprocess = lambda fn: fn()
        # An engine is one rank: torch's fake backend gives its groups what they are given, where gloo opens 13 ports.
        new_group = torch.distributed.new_group
        torch.distributed.new_group = lambda *given, **named: new_group(*given, **named | {"backend": "fake"})
        platform.dist_backend = "fake"
    die_with_parent()


def die_with_parent() -> None:
    """Kill this process once the process that spawned it is gone.

    Does nothing outside `multiprocessing` children. vLLM's engine core survives the kill of its owner and keeps the
    card's memory. A parent-death signal (PR_SET_PDEATHSIG) fires when the parent's *thread* ends, which in an actor may
    be any time; the sentinel pipe of `multiprocessing` closes with the process itself.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="die-with-parent", daemon=True).start()
