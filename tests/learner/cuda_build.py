"""The learner's forward and backward passes with the CUDA builds of torch and liger-kernel, on tensors without content
that claim to be on a card: tensors that meet on two devices, and factors of two dtypes, raise.

`cuda-env/bin/python -m tests.learner.cuda_build [RECIPE …]`, of an environment made by

    python3 -m venv cuda-env
    names='deepspeed|liger-kernel|omegaconf|peft|psutil|pydantic|torch|transformers'
    grep -E "^($names)==" launch/locks/cuda.txt >wanted
    cuda-env/bin/pip install --requirement wanted --constraint launch/locks/cuda.txt
"""

import json
import random
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.autograd.function import BackwardCFunction
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModelForCausalLM
from triton.runtime.jit import JITFunction

from actors.messages import AdapterRef, Batch
from conf.load import load
from conf.schema import Config
from launch.doctors.random_groups import random_group
from learner import learner as learners
from learner.learner import LoraLearner
from learner.model import fused
from learner.model import policy as policies
from learner.model.adapter import load_model
from tests.learner.full_size import give_storage
from tests.random_model import configuration

RECIPES = ("instruct", "math", "deepscaler", "llama", "qwen3")
RANK = 256
LENGTHS = [1500, 400, 90, 1000]
TOKENS = sum(LENGTHS)
DEVICE = torch.device("cuda", 0)
A40 = SimpleNamespace(multi_processor_count=84, major=8, minor=6, total_memory=48 * 10**9, name="NVIDIA A40")


COPIES = ("aten::_to_copy", "aten::copy_")
PRODUCTS = ("aten::mm", "aten::addmm", "aten::addmm_", "aten::bmm", "aten::baddbmm", "torch_attn::_varlen_attn")


class Strict(TorchDispatchMode):
    """Holds every operation to one device and every product to one dtype, which torch's own stand-ins do not check."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor) and leaf.dim()]
        name = func.name().partition(".")[0]
        if name not in COPIES and len({tensor.device for tensor in tensors}) > 1:
            raise RuntimeError(f"{name}: {[(tuple(tensor.shape), str(tensor.device)) for tensor in tensors]}")
        factors = [tensor for tensor in tensors if tensor.is_floating_point()]
        if name in PRODUCTS and len({tensor.dtype for tensor in factors}) > 1:
            raise RuntimeError(f"{name}: {[(tuple(tensor.shape), tensor.dtype) for tensor in factors]}")
        return func(*args, **(kwargs or {}))


class Passes:
    """Stands in for the optimizer: the passes alone, without DeepSpeed. gradients: of the adapter, summed."""

    def __init__(self, policy: Any, *_: Any, **__: Any) -> None:
        self.forward = policy
        self.gradients: dict[Tensor, Tensor] = {}

    def backward(self, loss: Tensor) -> None:
        assert loss.grad_fn is not None
        backward(loss.grad_fn, torch.ones_like(loss), self.gradients)


def backward(root: Any, gradient: Tensor, gradients: dict[Tensor, Tensor]) -> None:
    """Walk autograd's graph as its engine does, which counts the machine's cards first and finds none."""
    waiting, stack = Counter[Any](), [root]
    while stack:
        for node, _ in stack.pop().next_functions:
            if node is not None:
                stack += [] if node in waiting else [node]
                waiting[node] += 1
    arrived: defaultdict[Any, dict[int, Tensor]] = defaultdict(dict)
    arrived[root][0], ready = gradient, [root]
    while ready:
        node = ready.pop()
        given = arrived.pop(node, {})
        for (following, place), found in zip(node.next_functions, results_of(node, given), strict=False):
            if following is None:
                continue
            if found is not None:
                add(arrived[following], place, found)
            waiting[following] -= 1
            if not waiting[following]:
                ready.append(following)
        if hasattr(node, "variable") and given:
            add(gradients, node.variable, given[0])


def results_of(node: Any, given: dict[int, Tensor]) -> tuple[Tensor | None, ...]:
    """Return the gradients that a node makes of those of its outputs; Functions get zeros for what is missing."""
    if not given or hasattr(node, "variable"):
        return (None,) * len(node.next_functions)
    expected = node._input_metadata
    for place, found in given.items():  # as the engine does it
        assert found.device == expected[place].device, node
        given[place] = found.sum_to_size(expected[place].shape).to(expected[place].dtype)
    if not isinstance(node, BackwardCFunction):
        found = node(*(given.get(place) for place in range(len(expected))))
    else:
        missing = {
            place: torch.zeros(tuple(each.shape), dtype=each.dtype, device=each.device)
            for place, each in enumerate(expected)
            if place not in given
        }
        found = node.apply(*(value for _, value in sorted((given | missing).items())))
    found = found if isinstance(found, tuple) else (found,)
    if not isinstance(node, BackwardCFunction):
        return found
    needed = (value for value, needs in zip(found, node.needs_input_grad, strict=True) if needs)  # of all arguments
    return tuple(None if following is None else next(needed) for following, _ in node.next_functions)


def add(sums: dict[Any, Tensor], key: Any, value: Tensor) -> None:
    sums[key] = sums[key] + value if key in sums else value


@contextmanager
def a_card_that_is_not_there(config: Config, launched: Callable[[str], None]) -> Iterator[None]:
    """Have the learner's code take a card's ways. Kernels of Triton are not started, and no value is looked at."""

    def build(*_: Any, dtype: torch.dtype, **__: Any) -> Any:
        base = AutoModelForCausalLM.from_config(configuration(config.model), attn_implementation="eager", dtype=dtype)
        if config.learner.fused_kernels:
            assert fused.fuse(base, DEVICE)
        return base

    def repeated(values: Tensor, counts: Tensor) -> Tensor:
        assert values.device == counts.device
        return values.new_empty(TOKENS)

    def run(self: Any, *_: Any, **__: Any) -> None:
        launched(self.fn.__name__)

    with ExitStack() as stack:
        for target, name, value in (
            (AutoModelForCausalLM, "from_pretrained", build),
            (policies, "check_model", lambda *_: None),
            (policies, "unpadded_serves", lambda *_: config.learner.fused_kernels),
            (fused, "change_of", lambda *_: (0.0, 0.0)),
            (learners, "ZeroOptimizer", Passes),
            (learners, "shape_from_config", lambda _: config.model.shape),
            (learners, "_card_memory", lambda _: float(A40.total_memory)),
            (torch.cuda, "get_device_properties", lambda *_: A40),
            (torch.cuda, "device", lambda *_: nullcontext()),
            (torch.cuda, "get_device_capability", lambda *_: (A40.major, A40.minor)),
            (JITFunction, "run", run),
            (FakeTensor, "item", lambda _: 0.0),
            (FakeTensor, "__int__", lambda _: 0),
            (FakeTensor, "repeat_interleave", repeated),  # whose size depends on values
        ):
            stack.enter_context(patch.object(target, name, value, create=True))
        yield


def passes(recipe: str, fused_kernels: bool) -> dict[str, Any]:
    """Carry out the passes of a batch, and return what they have left."""
    terms = ("algorithm.kl=0.001", "algorithm.entropy=0.001")
    fusing = f"learner.fused_kernels={str(fused_kernels).lower()}"
    config = load([f"conf={recipe}", "model.dtype=bfloat16", f"lora.rank={RANK}", fusing, *terms])
    launched: set[str] = set()
    with a_card_that_is_not_there(config, launched.add):
        with torch.device("meta"):
            model = load_model(config, "", "meta")
        with patch.object(learners, "load_model", lambda *_: model):
            learner = LoraLearner(config, "", "", str(DEVICE))
        with patch.object(learner, "_pass"):
            learner.accumulate(Batch(0, (random_group(random.Random(0), 0, 256, LENGTHS, AdapterRef(0, 0, "")),)))
        with FakeTensorMode(allow_non_fake_inputs=True):
            with DEVICE:
                give_storage(model, torch.bfloat16)
            work = learner._accumulated
            assert work is not None
            with Strict():
                learner._pass(work)
                figures = learner.policy.against_base(work.parts[0].to(DEVICE))
    trained = [parameter for parameter in learner.model.parameters() if parameter.requires_grad]
    gradients: dict[Tensor, Tensor] = learner._optimizer.gradients  # type: ignore[attr-defined]
    assert set(gradients) == set(trained)
    assert all(gradients[weight].shape == weight.shape for weight in trained)
    assert {(figure.device, figure.dtype) for figure in figures} == {(DEVICE, torch.float32)}
    return {
        "recipe": recipe,
        "fused": fused_kernels,
        "weights": len(trained),
        "devices": sorted({str(tensor.device) for tensor in (*trained, *gradients.values())}),
        "dtypes": sorted({str(tensor.dtype) for tensor in gradients.values()}),
        "kernels": sorted(launched),
    }


if __name__ == "__main__":
    for fused_kernels in (False, True):  # which from then on has every model of a family in this process
        for recipe in sys.argv[1:] or RECIPES:
            print(json.dumps(passes(recipe, fused_kernels)), flush=True)
