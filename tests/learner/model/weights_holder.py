"""Holds models in vLLM's own layout in shared memory, as `actors.rollout.shared_weights` does in a GPU's.

arguments: a folder for the handles, and DTYPE:FOLDER of each model. It ends with its standard input.
"""

import os
import sys
from pathlib import Path

import torch.multiprocessing

from microbudget_rl.actors.rollout.shared_weights import handles, make_daemon
from microbudget_rl.actors.runtime.placement import Share
from microbudget_rl.conf.schema import Config
from microbudget_rl.conf.settings import changed


def hold(config: Config, folder: str) -> torch.nn.Module:
    """Load a model as vLLM's daemon does, without the repacking for a CPU."""
    from vllm.config import set_current_vllm_config
    from vllm.distributed import ensure_model_parallel_initialized, init_distributed_environment
    from vllm.model_executor.model_loader.weight_cache import daemon as cache

    cache.process_weights_after_loading = lambda *_: None
    torch.multiprocessing.set_sharing_strategy("file_system")  # by name, which any process can open
    daemon = make_daemon(config, folder, Share(cores=(0,)), "")
    if not torch.distributed.is_initialized():
        init_distributed_environment(1, 0, daemon.distributed_init_method, 0, "gloo")
    with set_current_vllm_config(daemon.vllm_config):
        ensure_model_parallel_initialized(1, 1)
        return daemon.get_model()


def main(out: str, *wanted: str) -> None:
    lengths = dict.fromkeys(("rollout.max_prompt_tokens", "rollout.max_response_tokens", "adapter_check.tokens"), 16)
    models = []
    for number, (dtype, _, folder) in enumerate(each.partition(":") for each in wanted):
        models.append(hold(changed(Config(), {"model.dtype": dtype, **lengths}), folder))
        Path(out, str(number)).write_bytes(handles(models[-1]))
    print("held", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    os.environ |= {"VLLM_LOGGING_LEVEL": "ERROR", "GLOO_SOCKET_IFNAME": "lo"}  # as in a run
    main(*sys.argv[1:])
