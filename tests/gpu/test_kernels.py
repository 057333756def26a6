"""The learner's ways on a card, one by one, at full size: seconds and memory before and after, and the same numbers."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AutoModelForCausalLM

from conf.load import load
from conf.schema import Config
from conf.settings import changed
from launch.hardware.machine import GIB
from learner.examples import Tokens
from learner.model import adapter, logprobs, projection
from learner.model import policy as policies
from learner.model.adapter import load_model
from learner.model.attention import unpadded_serves
from learner.model.policy import Policy
from learner.packing import pack
from tests.learner.full_size import fullest, modeling
from tests.random_model import configuration

CARD = torch.device("cuda")
TIMES = 3
AGREE = 0.1
"""Largest mean |Δ log p| between two sound ways through one model in bfloat16."""

WAYS = ("products in a chain", "norms and MLP fused", "attention without padding", "logits in float32")


def rounded(hidden: Tensor, head: Tensor, temperature: float) -> Tensor:
    """Logits by way of bfloat16."""
    return (hidden @ head.T).float() / temperature


@contextmanager
def only(config: Config, ways: tuple[str, ...]) -> Iterator[None]:
    """Have the learner take these ways and, for the others, those of a processor. Its model is random."""

    def build(*_: Any, dtype: torch.dtype, **__: Any) -> Any:
        return AutoModelForCausalLM.from_config(configuration(config.model), attn_implementation="eager", dtype=dtype)

    off: dict[str, tuple[Any, str, Callable[..., Any]]] = {
        WAYS[0]: (projection, "chains", lambda x: False),
        WAYS[1]: (adapter, "fuse", lambda *_: False),
        WAYS[2]: (policies, "unpadded_serves", lambda *_: False),
        WAYS[3]: (logprobs, "_logits", rounded),
    }
    with ExitStack() as stack:
        stack.enter_context(patch.object(AutoModelForCausalLM, "from_pretrained", build))
        stack.enter_context(patch.dict(vars(import_module(modeling(config)))))  # fused kernels stay there otherwise
        for way in set(WAYS) - set(ways):
            stack.enter_context(patch.object(*off[way]))
        yield


def measure(config: Config, ways: tuple[str, ...]) -> tuple[float, float, Tensor, float]:
    """Seconds and peak bytes of a full micro-batch, its log-probabilities, and the norm of its gradients."""
    with only(config, ways):
        torch.manual_seed(0)
        policy = Policy(load_model(config, "", CARD), 1.0, config.learner.logprob_chunk, fused=True).train()
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.02)
        batch = fullest(config.learner.tokens_per_microbatch).to(CARD)
        seconds = []
        for _ in range(1 + TIMES):
            policy.zero_grad()
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            began = time.perf_counter()
            found, _ = policy(batch)
            found.sum().backward()
            torch.cuda.synchronize()
            seconds.append(time.perf_counter() - began)
        norms = [p.grad.float().norm() for p in policy.parameters() if p.grad is not None]
        peak = torch.cuda.max_memory_allocated()
    return min(seconds[1:]), peak, found.detach().cpu(), torch.stack(norms).norm().item()


@pytest.mark.parametrize("rank", [8, 256])
def test_each_way_gives_the_same_numbers_and_is_no_slower(rank: int) -> None:
    config = load([f"conf=r{rank}_instruct"])
    config = changed(config, {"model.dtype": "bfloat16"})
    before, room, plain, norm = measure(config, ())
    print(f"\nrank {rank}: plain {before:.3f} s, {room / GIB:.2f} GiB")
    for count in range(1, len(WAYS) + 1):
        seconds, peak, found, gradients = measure(config, WAYS[:count])
        print(f"+ {WAYS[count - 1]:<28} {seconds:.3f} s, {peak / GIB:.2f} GiB, {before / seconds:.2f} times as fast")
        assert (found - plain).abs().mean() < AGREE
        assert gradients == pytest.approx(norm, rel=0.1)
    assert seconds < before
    assert peak < room
    torch.cuda.empty_cache()


def test_attention_without_padding_serves_this_card() -> None:
    for recipe in ("instruct", "llama", "qwen3"):
        assert unpadded_serves(configuration(load([f"conf=r8_{recipe}"]).model), CARD)


@pytest.mark.parametrize(("heads", "kv_heads", "size"), [(9, 3, 64), (12, 2, 128)])
def test_attention_of_packed_rows_runs_in_the_flash_kernel(heads: int, kv_heads: int, size: int) -> None:
    """Heads and strides as `learner.model.attention.attend` gives them: no other kernel may take them, or it raises."""
    (part,) = pack([Tokens(tuple(range(30)), tuple(range(n))) for n in (40, 50)], 1000)
    block = part.to(CARD).blocks[0]
    flat = [
        torch.randn(part.tokens, count, size, device=CARD, dtype=torch.bfloat16, requires_grad=True)
        for count in (heads, kv_heads, kv_heads)
    ]
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        query, key, value = (x[block.keys].transpose(1, 2) for x in flat)
        output = torch.nn.functional.scaled_dot_product_attention(
            query, key, value, is_causal=True, scale=0.1, enable_gqa=True
        )
        output.sum().backward()
    assert all(x.grad is not None and x.grad.isfinite().all() for x in flat)
