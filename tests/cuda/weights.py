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


class Weights:
    """A tiny model, as vLLM's daemon holds it on a GPU."""

    def __init__(self, folder: Path) -> None:
        lengths = dict.fromkeys(
            ("rollout.max_prompt_tokens", "rollout.max_response_tokens", "adapter_check.tokens"), 16
        )
        self.config = changed(Config(), {"model.dtype": "bfloat16", **lengths})
        self.folder = str(write_tiny_model(folder))
        self.daemon = make_daemon(self.config, self.folder, Share(gpus=0.5, memory=0.5), "")
        self.daemon.vllm_config.load_config.device = "cpu"
        self.daemon.load_model()
        assert self.daemon.model is not None
        self.held = dict(self.daemon.model.named_parameters(remove_duplicate=False))

    def served(self, place: Path) -> dict[str, Any]:
        """Load the model over a socket, where temporary files are in a folder. Raises if it is another one."""
        from vllm import EngineArgs
        from vllm.config import set_current_vllm_config
        from vllm.model_executor.model_loader import get_model_loader

        tempfile.tempdir = str(place)
        daemon, ready, folder = copy.copy(self.daemon), threading.Event(), socket_folder()
        daemon.socket_dir = folder.name
        threading.Thread(target=daemon.serve_forever, args=(ready.set,), daemon=True).start()
        assert ready.wait(60.0), daemon._socket_path
        share = Share(gpus=0.4, memory=0.4, mapped=Mapped(folder.name, 0.3))
        made = EngineArgs(**engine_settings(self.config, self.folder, share, None)).create_engine_config()
        made.load_config.device = "cpu"
        loader = get_model_loader(made.load_config)
        with set_current_vllm_config(made):
            model = loader.load_model(vllm_config=made, model_config=made.model_config)
        found = dict(model.named_parameters(remove_duplicate=False))
        if found.keys() != self.held.keys() or not all(torch.equal(found[name], self.held[name]) for name in found):
            raise ValueError("the weights differ")
        return {"characters": len(daemon._socket_path)}


def ask() -> None:
    pretend("RTX4090")
    set_environment(Share(gpus=1.0), 1)
    from vllm.platforms import current_platform

    type(current_platform).dist_backend = "gloo"
    torch.accelerator.set_device_index = torch.accelerator.empty_cache = lambda *_: None
    torch.accelerator.memory_allocated = torch.accelerator.memory_reserved = lambda *_: 0
    with tempfile.TemporaryDirectory(dir="/tmp") as made:
        weights = Weights(Path(made, "model"))
        learned = partial(model_on, weights.held, weights.folder, torch.bfloat16)  # compares them with the file
        attempt("weights in the learner", "tiny Llama", lambda: {"layers": learned().config.num_hidden_layers})
        for length in range(1, 90):
            root = Path(made, "x" * length)
            root.mkdir(mode=0o700)
            where = f"TMPDIR of {len(str(root))} characters"
            attempt("weights over their socket", f"doctor, {where}", partial(weights.served, root))
            tempfile.tempdir = str(root)
            session = make_temporary(Path(made))
            attempt("weights over their socket", f"run, {where}", partial(weights.served, session))
