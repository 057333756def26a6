"""The learner's passes by the CUDA builds of torch and liger-kernel, on tensors without content that claim to be on a
GPU. Tensors that meet on two devices, and factors of two dtypes, raise; the peak of their memory is held to the plan's.
"""

import math
import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModelForCausalLM
from triton.runtime.jit import JITFunction

from actors.messages import AdapterRef, Batch
from actors.models.families import FUSED
from conf.load import load
from conf.schema import Config
from conf.settings import changed
from launch.checkup.measurement import random_group
from launch.hardware.machine import GIB, with_listed
from launch.plan.plan import make_plan
from learner import learner as learners
from learner.learner import LoraLearner
from learner.model import fused
from learner.model import policy as policies
from learner.model.adapter import load_model
from tests.cuda.absent import attempt, pretend, without_content
from tests.learner.full_size import PROMPT, Memory, give_storage
from tests.random_model import KINDS, configuration

DEVICE = torch.device("cuda", 0)

RECIPES = ("r8_llama", "r256_qwen3", "smollm3", "gemma3", "qwen2.5-7b", "r8_instruct", "r256_instruct")

LAYERS = 4
"""Layers of all models but the last ones, which are as deep as they are."""

COPIES = ("aten::_to_copy", "aten::copy_")

PRODUCTS = ("aten::mm", "aten::addmm", "aten::addmm_", "aten::bmm", "aten::baddbmm", "torch_attn::_varlen_attn")


class Strict(TorchDispatchMode):
    """Holds every operation to one device and every product to one dtype, which torch's own stand-ins do not check."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor) and leaf.dim()]
        name = func.name().partition(".")[0]
        devices, dtypes = {x.device for x in tensors}, {x.dtype for x in tensors if x.is_floating_point()}
        if (name not in COPIES and len(devices) > 1) or (name in PRODUCTS and len(dtypes) > 1):
            raise TypeError(f"{name}: {devices}, {dtypes}")
        return func(*args, **(kwargs or {}))


@contextmanager
def on_a_gpu(config: Config, launched: set[str]) -> Iterator[None]:
    """Have the learner's code take a GPU's ways. Kernels of Triton are not started, and no value is looked at."""
    fuses = config.learner.fused_kernels

    def build(*_: Any, dtype: torch.dtype, **__: Any) -> Any:
        base = AutoModelForCausalLM.from_config(configuration(config.model), attn_implementation="eager", dtype=dtype)
        assert not fuses or base.config.model_type not in FUSED or fused.fuse(base, DEVICE)
        return base

    with ExitStack() as stack:
        for target, name, value in (
            (AutoModelForCausalLM, "from_pretrained", build),
            (policies, "check_model", lambda *_: None),
            (policies, "unpadded_serves", lambda *_: fuses),
            (fused, "change_of", lambda *_: (0.0, 0.0)),
            (learners, "ZeroOptimizer", lambda policy, *_: SimpleNamespace(forward=policy, backward=Tensor.backward)),
            (torch.cuda, "device", lambda *_: nullcontext()),
            (JITFunction, "run", lambda kernel, *_, **__: launched.add(kernel.__name__)),
            (FakeTensor, "item", lambda _: 0.0),
            (FakeTensor, "__int__", lambda _: 0),
            # Its size depends on values.
            (FakeTensor, "repeat_interleave", lambda values, _: values.new_empty(2 * length(config))),
        ):
            stack.enter_context(patch.object(target, name, value, create=True))
        yield


def length(config: Config) -> int:
    """Return the tokens of each of two responses that fill a micro-batch with their prompt."""
    return (config.learner.tokens_per_microbatch - PROMPT) // 2 + 1


def passes(config: Config) -> dict[str, Any]:
    """Learn from a full micro-batch and compare it with the reference. Raises if gradients are not the adapter's."""
    launched, memory = set[str](), Memory()
    group = random_group(random.Random(0), 0, PROMPT, [length(config)] * 2, AdapterRef(0, 0, ""))
    with on_a_gpu(config, launched):
        with torch.device("meta"):
            model = load_model(config, "", "meta")
        with patch.object(learners, "load_model", lambda *_, **__: model):
            learner = LoraLearner(config, "", "", str(DEVICE))
        with patch.object(learner, "_pass"):
            learner.accumulate(Batch(0, (group,)))
        work = learner._accumulated
        assert work is not None
        with without_content():
            with DEVICE:
                give_storage(model, torch.bfloat16)
            for parameter in model.parameters():
                memory.see(parameter)
            with memory, Strict():
                learner._pass(work)
            with Strict():
                figures = learner.policy.against_reference(work.parts[0].to(DEVICE))
    trained = [p for p in model.parameters() if p.requires_grad]
    given = {(p.grad.device, p.grad.dtype) for p in trained if p.grad is not None}
    assert all(p.grad is not None and p.grad.shape == p.shape for p in trained)
    assert given == {(DEVICE, torch.bfloat16)}
    assert {(figure.device, figure.dtype) for figure in figures} == {(DEVICE, torch.float32)}
    assert bool(launched) == (config.learner.fused_kernels and KINDS[config.model.path] in FUSED)
    return {"gib": (memory.peak + 4 * sum(p.numel() for p in trained)) / GIB, "kernels": sorted(launched)}


def below(found: float, most: float) -> dict[str, Any]:
    if found >= most:
        raise ValueError(f"{found:.2f} GiB, not less than {most:.2f}")
    return {"found": round(found, 2), "most": round(most, 2)}


def ask() -> None:
    pretend("H100")
    plain = dict[str, float]()
    for fusing in (False, True):  # fused kernels then stay in every model of a family in this process
        for recipe in RECIPES:
            settings = {"learner.fused_kernels": fusing, "learner.gradient_checkpointing": "off"}
            config = changed(load([f"conf={recipe}", "device=H100"]), settings)
            if "instruct" not in recipe:
                config = changed(config, {"model.shape.num_hidden_layers": LAYERS})
            plan = make_plan(config, with_listed("H100", (0,)))
            if fusing and KINDS[plan.config.model.path] not in FUSED:
                continue
            name = f"{recipe}, {'fused' if fusing else 'plain'} kernels"
            found = attempt("learner's passes", name, partial(passes, plan.config)).get("gib", math.inf)
            attempt("memory of the plan", name, partial(below, found, plan.needed("learner GPU") / GIB))
            if fusing:
                attempt("less memory with fused kernels", recipe, partial(below, found, plain[recipe]))
            plain[recipe] = found
