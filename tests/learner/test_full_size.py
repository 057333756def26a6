"""The plan's GPU memory of a learner against passes at full size, on tensors without content.

Kernels are the plain ones: the fused ones need a GPU.
"""

import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import is_dataclass, replace
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from transformers import AutoModelForCausalLM

from microbudget_rl.conf.load import load
from microbudget_rl.conf.schema import Config
from microbudget_rl.conf.settings import changed
from microbudget_rl.launch.hardware.machine import detect
from microbudget_rl.launch.plan.plan import Plan, make_plan
from microbudget_rl.learner.model import adapter, attention
from microbudget_rl.learner.model import policy as policies
from microbudget_rl.learner.model.adapter import load_model
from microbudget_rl.learner.model.policy import Policy
from microbudget_rl.learner.packing import MicroBatch, Tokens, pack
from tests.random_model import KINDS, configuration

pytestmark = pytest.mark.long

PROMPT = 256


class Memory(TorchDispatchMode):
    """Counts the bytes of all tensors. (torch's own tracker skips frozen weights.)"""

    def __init__(self) -> None:
        super().__init__()
        self.peak = self._now = 0
        self._known: dict[int, weakref.ref[Any]] = {}

    def see(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = id(storage), storage.nbytes()
        if key in self._known:
            return

        def gone(_: Any) -> None:
            del self._known[key]
            self._now -= size

        self._known[key] = weakref.ref(storage, gone)
        self._now += size
        self.peak = max(self.peak, self._now)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        tree_map_only(Tensor, self.see, found)
        return found


def random_model(config: Config, dtype: torch.dtype) -> Any:
    return AutoModelForCausalLM.from_config(configuration(config.model), attn_implementation="eager", dtype=dtype)


@contextmanager
def as_on_a_gpu(config: Config) -> Iterator[None]:
    """Make the learner's code take its GPU branches."""
    with ExitStack() as stack:
        for target, name, value in (
            (adapter, "whole_model", lambda *_, dtype, **__: random_model(config, dtype)),
            (adapter, "wrapped", lambda _: False),
            (policies, "check_model", lambda *_: None),
            (policies, "unpadded_serves", lambda *_: False),
            (attention, "precision", lambda query: query.dtype),
        ):
            stack.enter_context(patch.object(target, name, value))
        yield


def modeling(config: Config) -> str:
    family = KINDS[config.model.path]
    return f"transformers.models.{family}.modeling_{family}"


def fullest(tokens: int, whole: bool = False) -> MicroBatch:
    """Return a micro-batch of two samples of one prompt with this number of tokens. whole: see `pack`."""
    response = (tokens - PROMPT) // 2 + 1
    (batch,) = pack([Tokens((1,) * PROMPT, (1,) * response) for _ in range(2)], tokens, whole)
    assert batch.tokens == tokens
    return batch


def give_storage(model: nn.Module, dtype: torch.dtype) -> None:
    """Let weights without content take memory of the fake device. dtype: the adapter's, which PEFT sets otherwise."""
    made: dict[int, nn.Parameter] = {}  # tied weights stay tied
    for module in model.modules():
        for name, p in list(module.named_parameters(recurse=False)):
            if id(p) not in made:
                storage = torch.empty(p.shape, dtype=dtype if p.requires_grad else p.dtype)
                made[id(p)] = nn.Parameter(storage, requires_grad=p.requires_grad)
            setattr(module, name, made[id(p)])
        for name, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, name, torch.empty(buffer.shape, dtype=buffer.dtype))


def faked(mode: FakeTensorMode, data: Any) -> Any:
    """Return a dataclass with fake tensors in place of its own, nested ones included."""

    def fake(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(fake, value))
        if isinstance(value, Tensor):
            return mode.from_tensor(value)
        return faked(mode, value) if is_dataclass(value) else value

    return replace(data, **{name: fake(value) for name, value in vars(data).items()})


def peak(plan: Plan) -> float:
    """Return the peak bytes of tensors in a forward and backward pass, summed gradients included."""
    config, memory, stack = plan.config, Memory(), ExitStack()
    with as_on_a_gpu(config):
        with torch.device("meta"):
            model = load_model(config, "", "meta")
        mode = stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        give_storage(model, getattr(torch, config.model.dtype))
        checkpointing = config.learner.gradient_checkpointing == "on"
        policy = Policy(model, 1.0, config.learner.logprob_chunk, checkpointing=checkpointing).train()
        batch = faked(mode, fullest(config.learner.microbatch, policy.mixes))
        for parameter in model.parameters():
            memory.see(parameter)
        with stack, memory:
            logprobs, _ = policy(batch)
            logprobs.sum().backward()
        sums = 4 * sum(p.numel() for p in model.parameters() if p.requires_grad)
    return memory.peak + sums


def planned(plan: Plan) -> float:
    """Return the planned bytes of a learner on a GPU, without CUDA's context and the bucket."""
    parts = [entry for entry in plan.memory if entry.place == "learner GPU" and "context" not in entry.what]
    return sum(entry.bytes for entry in parts)


@pytest.mark.parametrize(
    ("recipe", "recomputes", "most"),
    [("r8_llama", "off", 1.05), ("r256_qwen3", "off", 1.05), ("r8_llama", "on", 1.1)],
    ids=["plain", "norms of heads", "recomputed"],
)
def test_a_peak_is_as_planned(recipe: str, recomputes: str, most: float):
    checkpointing = f"learner.gradient_checkpointing={recomputes}"
    config = load([f"conf={recipe}", "device=A40", "learner.fused_kernels=false", checkpointing])
    plan = make_plan(changed(config, {"model.dtype": "bfloat16"}), detect("A40"))
    assert 0.97 < planned(plan) / peak(plan) < most
