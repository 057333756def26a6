from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from microbudget_rl.learner.model.logprobs import Head, divergence, token_logprobs

pytestmark = pytest.mark.long


def case(
    tokens: int, size: int, vocabulary: int, dtype: torch.dtype = torch.float64, scale: float = 1.0, cap: Any = None
) -> tuple[Tensor, Head, Tensor]:
    generator = torch.Generator().manual_seed(tokens * 10_000 + size * 100 + vocabulary)
    hidden = torch.randn(tokens, size, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    head = torch.randn(vocabulary, size, generator=generator, dtype=torch.float64).to(dtype)
    return hidden, Head(head, scale, cap), torch.randint(vocabulary, (tokens,), generator=generator)


def distribution(hidden: Tensor, head: Head, temperature: float) -> Tensor:
    logits = head.scale * hidden @ head.weight.T.to(hidden)
    logits = logits if head.cap is None else head.cap * (logits / head.cap).tanh()
    return (logits / temperature).log_softmax(-1)


def reference(hidden: Tensor, head: Head, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    logprobs = distribution(hidden, head, temperature)
    return logprobs.gather(1, targets[:, None])[:, 0], -(logprobs.exp() * logprobs).sum(-1)


@given(
    st.integers(1, 12),
    st.integers(1, 9),
    st.integers(1, 33),
    st.sampled_from([0.6, 1.0, 2.0]),
    st.integers(1, 14),
    st.sampled_from([(1.0, None), (0.25, None), (1.0, 0.5), (2.0, 30.0)]),
)
def test_values_and_gradient(
    tokens: int, size: int, vocabulary: int, temperature: float, chunk: int, logits: tuple[float, float | None]
):
    hidden, head, targets = case(tokens, size, vocabulary, torch.float64, *logits)
    weights = torch.linspace(-1, 2, tokens, dtype=torch.float64)
    expected, expected_entropy = reference(hidden, head, targets, temperature)
    both = (expected * weights).sum() + (expected_entropy * weights.flip(0)).sum()
    (expected_gradient,) = torch.autograd.grad((expected * weights).sum(), hidden, retain_graph=True)
    (expected_both,) = torch.autograd.grad(both, hidden)
    got, entropy = token_logprobs(hidden, head, targets, temperature, chunk)
    assert not entropy.requires_grad
    (gradient,) = torch.autograd.grad((got * weights).sum(), hidden)
    again, entropy = token_logprobs(hidden, head, targets, temperature, chunk, entropy_gradient=True)
    (gradient_both,) = torch.autograd.grad((again * weights).sum() + (entropy * weights.flip(0)).sum(), hidden)
    assert torch.equal(got, again)
    torch.testing.assert_close(gradient_both, expected_both, rtol=0, atol=1e-10)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(entropy, expected_entropy, rtol=0, atol=1e-10)
    torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=1e-10)


def test_bf16_input_has_a_float32_softmax():
    hidden, head, targets = case(64, 48, 500, torch.bfloat16)
    logits = (hidden @ head.weight.T).float()
    got, _ = token_logprobs(hidden, head, targets, 1.0, 16)
    got.sum().backward()
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, logits.log_softmax(-1).gather(1, targets[:, None])[:, 0], rtol=1e-6, atol=1e-5)
    assert hidden.grad is not None
    assert hidden.grad.dtype == torch.bfloat16


@pytest.mark.parametrize("confidence", [0.5, 0.99, 0.9999])
def test_confident_token_keeps_its_gradient_in_bf16(confidence: float):
    """W_y − Σ p W cancels to zero in bfloat16 when p_y is near 1; such a token could never be unlearned."""
    generator = torch.Generator().manual_seed(0)
    head = torch.randn(500, 64, generator=generator).to(torch.bfloat16)
    size = torch.tensor(confidence / (1 - confidence) * 500).log() / head[7].double().square().sum()
    hidden = (size * head[7].double()).to(torch.bfloat16)[None].requires_grad_()
    exact = hidden.detach().double().requires_grad_()
    reference(exact, Head(head), torch.tensor([7]), 1.0)[0].sum().backward()
    token_logprobs(hidden, Head(head), torch.tensor([7]), 1.0, 16)[0].sum().backward()
    assert hidden.grad is not None
    assert exact.grad is not None
    assert (hidden.grad.double() - exact.grad).norm() < 0.05 * exact.grad.norm()


def test_large_logits_do_not_overflow():
    hidden, head, targets = case(4, 3, 7)
    got, entropy = token_logprobs(1e4 * hidden, head, targets, 1.0, 4)
    assert got.isfinite().all()
    assert entropy.abs().max() < 1e-6
    (gradient,) = torch.autograd.grad(token_logprobs(1e4 * hidden, head, targets, 1.0, 4, True)[1].sum(), hidden)
    assert gradient.isfinite().all()


@given(
    st.integers(1, 12),
    st.integers(1, 33),
    st.sampled_from([0.6, 1.0, 2.0]),
    st.integers(1, 14),
    st.sampled_from([None, 2.0]),
)
def test_divergence_is_exact(tokens: int, vocabulary: int, temperature: float, chunk: int, cap: float | None):
    hidden, head, _ = case(tokens, 5, vocabulary, cap=cap)
    base = hidden.detach().flip(0) + 0.1
    p, q = (distribution(x.detach(), head, temperature) for x in (hidden, base))
    entropy, base_entropy, kl = divergence(hidden.detach(), base, head, temperature, chunk)
    torch.testing.assert_close(entropy, -(p.exp() * p).sum(-1))
    torch.testing.assert_close(base_entropy, -(q.exp() * q).sum(-1))
    torch.testing.assert_close(kl, torch.nn.functional.kl_div(q, p, log_target=True, reduction="none").sum(-1))
    assert (kl >= -1e-12).all()
