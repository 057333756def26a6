from typing import cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig
from peft.tuners.lora import Linear
from torch import Tensor, nn

from microbudget_rl.learner.model import projection
from microbudget_rl.learner.model.projection import Projection

pytestmark = pytest.mark.long

SIZES = st.integers(1, 12)


def layer(kind: type[Linear], inputs: int, outputs: int, rank: int, bias: bool, dropout: float = 0.0) -> Linear:
    """Return a layer with the same weights whatever its kind; B is not zero."""
    torch.manual_seed(0)
    config = LoraConfig(r=rank, lora_alpha=3 * rank, lora_dropout=dropout)
    base = nn.Linear(inputs, outputs, bias).requires_grad_(False)
    made = kind(base, "default", config=config, r=rank, lora_alpha=3 * rank)
    nn.init.normal_(cast(nn.Linear, made.lora_B["default"]).weight)
    return made


def passes(made: Linear, x: Tensor, least: float = -1.0) -> list[Tensor]:
    """Return the output, and the gradients of input, A and B, for a loss that weighs outputs from `least` to 1."""
    x = x.clone().requires_grad_()
    y = made(x)
    (y * torch.linspace(least, 1.0, y.numel()).view_as(y)).sum().backward()
    factors = (cast(nn.Linear, pair["default"]).weight for pair in (made.lora_A, made.lora_B))
    return [y.detach(), *(cast(Tensor, leaf.grad) for leaf in (x, *factors))]


@given(st.integers(1, 40), SIZES, SIZES, st.integers(1, 16), st.booleans())
def test_values_and_gradients_are_pefts(tokens: int, inputs: int, outputs: int, rank: int, bias: bool):
    x = torch.randn(1, tokens, inputs, generator=torch.Generator().manual_seed(tokens))
    ours, theirs = (passes(layer(kind, inputs, outputs, rank, bias), x) for kind in (Projection, Linear))
    for own, other in zip(ours, theirs, strict=True):
        assert (own - other).norm() <= 1e-5 * (other.norm() + 1.0)


@settings(max_examples=40)
@given(st.integers(1, 40), SIZES, SIZES, st.integers(1, 16), st.booleans())
def test_chained_products_give_pefts_values_and_gradients(
    tokens: int, inputs: int, outputs: int, rank: int, bias: bool
):
    """They are exact in float64, and in bfloat16 no further from that than PEFT's."""
    x = torch.randn(1, tokens, inputs, generator=torch.Generator().manual_seed(tokens))

    def both(kind: type[Linear]) -> tuple[list[Tensor], list[Tensor]]:
        made = [layer(kind, inputs, outputs, rank, bias).to(dtype) for dtype in (torch.float64, torch.bfloat16)]
        return passes(made[0], x.double()), [value.double() for value in passes(made[1], x.bfloat16())]

    exact, narrow = both(Linear)
    positive = layer(Linear, inputs, outputs, rank, bias).double()
    for parameter in positive.parameters():
        parameter.data.abs_()
    terms = passes(positive, x.double().abs(), least=0.5)  # sizes of the sums without cancellation
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(projection, "chains", lambda x: True)
        ours, rounded = both(Projection)
    for own, other in zip(ours, exact, strict=True):
        assert (own - other).norm() <= 1e-10 * (other.norm() + 1.0)
    for own, other, true, sizes in zip(rounded, narrow, exact, terms, strict=True):
        assert (own - true).norm() <= 1.5 * (other - true).norm() + 2**-7 * sizes.norm()  # up to four more roundings


@pytest.mark.parametrize(
    ("chain", "dtype"), [(False, torch.float32), (True, torch.float32), (True, torch.bfloat16)], ids=str
)
def test_the_backward_pass_keeps_little_but_the_input(chain: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch):
    """A chain of products keeps its inner vector, too."""
    monkeypatch.setattr(projection, "chains", lambda x: chain)
    kept: list[tuple[int, ...]] = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tuple(tensor.shape))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        layer(Projection, 6, 8, 4, bias=chain).to(dtype)(torch.randn(1, 40, 6, dtype=dtype, requires_grad=True))
    assert sorted(kept) == [(1, 40, 6), (4, 6), (8, 4), (8, 6), *[(40, 4)] * chain]


@pytest.mark.parametrize("case", ["dropout", "disabled", "evaluated"])
def test_other_cases_go_to_peft(case: str):
    x = torch.randn(1, 40, 6)
    outputs = []
    for kind in (Projection, Linear):
        made = layer(kind, 6, 8, 4, bias=True, dropout=0.5 if case == "dropout" else 0.0)
        made.enable_adapters(case != "disabled")
        made.train(case != "evaluated")
        torch.manual_seed(1)
        outputs.append(made(x))
    assert torch.equal(*outputs)
