"""The base model by vLLM's daemon and loader for shared weights, over their socket, on tensors of the CPU."""

import copy
import tempfile
import threading
from functools import partial
from pathlib import Path
from typing import Any

import torch

from actors.rollout.shared_weights import make_daemon, socket_folder
from actors.rollout.vllm_settings import engine_settings, set_environment
from actors.runtime.placement import Mapped, Share
from actors.runtime.ray_session import make_temporary
from conf.schema import Config
from conf.settings import changed
from learner.model.shared_weights import model_on
from tests.conftest import write_tiny_model
from tests.cuda.absent import attempt, pretend

LENGTHS = ("rollout.max_prompt_tokens", "rollout.max_response_tokens", "adapter_check.tokens")

CONFIG = changed(Config(), {"model.dtype": "bfloat16", **dict.fromkeys(LENGTHS, 16)})


def serve(model: str, daemon: Any, place: Path) -> dict[str, Any]:
    """Load a daemon's model over a socket, where temporary files are in a folder. Raises if it is another one."""
    from vllm import EngineArgs
    from vllm.config import set_current_vllm_config
    from vllm.model_executor.model_loader import get_model_loader

    tempfile.tempdir = str(place)
    daemon, ready, folder = copy.copy(daemon), threading.Event(), socket_folder()
    daemon.socket_dir = folder.name
    threading.Thread(target=daemon.serve_forever, args=(ready.set,), daemon=True).start()
    assert ready.wait(60.0), daemon._socket_path
    share = Share(gpus=0.4, memory=0.4, mapped=Mapped(folder.name, 0.3))
    made = EngineArgs(**engine_settings(CONFIG, model, share, None)).create_engine_config()
    made.load_config.device = "cpu"
    with set_current_vllm_config(made):
        loaded = get_model_loader(made.load_config).load_model(vllm_config=made, model_config=made.model_config)
    held, found = (dict(each.named_parameters(remove_duplicate=False)) for each in (daemon.model, loaded))
    assert found.keys() == held.keys()
    assert all(torch.equal(found[name], held[name]) for name in held)
    return {"characters": len(daemon._socket_path)}


def learn(model: str, daemon: Any) -> None:
    """Give a daemon's model to the learner, which compares it with the file."""
    model_on(dict(daemon.model.named_parameters(remove_duplicate=False)), model, torch.bfloat16)


def ask() -> None:
    pretend("RTX4090")
    set_environment(Share(gpus=1.0), 1)
    from vllm.platforms import current_platform

    type(current_platform).dist_backend = "gloo"
    torch.accelerator.set_device_index = torch.accelerator.empty_cache = lambda *_: None
    torch.accelerator.memory_allocated = torch.accelerator.memory_reserved = lambda *_: 0
    with tempfile.TemporaryDirectory(dir="/tmp") as made:
        model = str(write_tiny_model(Path(made, "model")))
        daemon = make_daemon(CONFIG, model, Share(gpus=0.5, memory=0.5), "")
        daemon.vllm_config.load_config.device = "cpu"
        daemon.load_model()
        attempt("weights in the learner", "tiny Llama", partial(learn, model, daemon))
        for user, place in (("doctor", Path(made)), ("run", make_temporary(Path(made)))):
            attempt("weights over their socket", user, partial(serve, model, daemon, place))
