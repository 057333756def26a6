"""The learner's GPU kernels one by one at full size: the same numbers, and less memory in the end."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from importlib import import_module
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from microbudget_rl.actors.models.files import shape_of
from microbudget_rl.conf.load import load
from microbudget_rl.conf.schema import Config
from microbudget_rl.conf.settings import changed
from microbudget_rl.launch.hardware.machine import GIB, Machine
from microbudget_rl.launch.plan.plan import make_plan
from microbudget_rl.learner.model import adapter, logprobs, projection
from microbudget_rl.learner.model import policy as policies
from microbudget_rl.learner.model.adapter import load_model
from microbudget_rl.learner.model.attention import unpadded_serves
from microbudget_rl.learner.model.model_check import collected
from microbudget_rl.learner.model.policy import Policy
from tests.learner.test_full_size import fullest, modeling, planned, random_model
from tests.random_model import configuration

CUDA = torch.device("cuda")
AGREE = 0.1
"""Largest mean |Δ log p| between two correct computations of one model in bfloat16."""

ROOM = 0.75
"""Part of the free memory that a pass is planned to take: what one takes with plain kernels was never measured."""

KERNELS = ("products in a chain", "norms and MLP fused", "attention without padding", "logits in float32")


@contextmanager
def only(config: Config, kernels: tuple[str, ...]) -> Iterator[None]:
    """Make the learner use these kernels and the CPU's code otherwise. Its model is random."""
    off: dict[str, tuple[Any, str, Callable[..., Any]]] = {
        KERNELS[0]: (projection, "chains", lambda x: False),
        KERNELS[1]: (adapter, "fuse", lambda *_: True),  # refused ones would have activations computed twice
        KERNELS[2]: (policies, "unpadded_serves", lambda *_: False),
        KERNELS[3]: (logprobs, "_logits", lambda hidden, head, heat: (hidden @ head.T).float() / heat),  # rounded
    }
    with ExitStack() as stack:
        stack.enter_context(
            patch.object(AutoModelForCausalLM, "from_pretrained", lambda *_, dtype, **__: random_model(config, dtype))
        )
        stack.enter_context(patch.dict(vars(import_module(modeling(config)))))  # fused kernels stay there otherwise
        for kernel in set(KERNELS) - set(kernels):
            stack.enter_context(patch.object(*off[kernel]))
        yield


@collected()  # else a later measurement has less memory, and so has a later module
def measure(config: Config, kernels: tuple[str, ...]) -> tuple[float, Tensor, float]:
    """Return peak bytes of a full micro-batch, its log-probabilities, and the norm of its gradients."""
    with only(config, kernels):
        torch.manual_seed(0)
        policy = Policy(load_model(config, "", CUDA), 1.0, config.learner.logprob_chunk, fused=True).train()
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.02)
        batch = fullest(config.learner.microbatch).to(CUDA)
        for _ in range(2):  # the first also compiles
            policy.zero_grad()
            torch.cuda.reset_peak_memory_stats()
            found, _ = policy(batch)
            found.sum().backward()
        norms = [p.grad.float().norm() for p in policy.parameters() if p.grad is not None]
        peak = torch.cuda.max_memory_allocated()
    return peak, found.detach().cpu(), torch.stack(norms).norm().item()


def shortened(config: Config, machine: Machine) -> Config:
    """Return the configuration of as many layers as the free memory holds with plain kernels."""
    shape, room = shape_of(config.model), ROOM * torch.cuda.mem_get_info()[0]
    plain = {"model.dtype": "bfloat16", "learner.fused_kernels": False, "learner.gradient_checkpointing": "off"}
    for layers in range(shape.num_hidden_layers, 0, -1):
        short = changed(config, plain | {"model.shape": replace(shape, num_hidden_layers=layers)})
        if planned(make_plan(short, machine)) < room:
            return changed(short, {"learner.fused_kernels": True})
    pytest.skip(f"{room / GIB:.1f} GiB are too few for one layer")


@pytest.mark.parametrize("rank", [8, 256])
def test_each_kernel_gives_the_same_numbers(rank: int, machine: Machine):
    config = shortened(load([f"conf=r{rank}_instruct"]), machine)
    room, plain, norm = measure(config, ())
    print(f"\nrank {rank}, {config.model.shape.num_hidden_layers} layers: plain {room / GIB:.2f} GiB")
    for count in range(1, len(KERNELS) + 1):
        peak, found, gradients = measure(config, KERNELS[:count])
        print(f"+ {KERNELS[count - 1]:<28} {peak / GIB:.2f} GiB")
        assert (found - plain).abs().mean() < AGREE
        assert gradients == pytest.approx(norm, rel=0.1)
    assert peak < room
    torch.cuda.empty_cache()


def test_attention_without_padding_runs_here():
    for recipe in ("instruct", "llama", "qwen3"):
        assert unpadded_serves(configuration(load([f"conf=r8_{recipe}"]).model), CUDA)
