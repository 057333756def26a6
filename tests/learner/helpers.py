"""Batches, updates, and plain log-probabilities for the tests of the learner."""

import copy
import gc
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import nn

from microbudget_rl.actors.coordinator.rules.rate import learning_rate
from microbudget_rl.actors.messages import AdapterRef, Batch, Group, Sample, UpdateStats
from tests.conftest import build_group, weighed

if TYPE_CHECKING:
    from microbudget_rl.learner.learner import LoraLearner

Make = Callable[..., "LoraLearner"]


def batch(version: int = 0, count: int = 3, incarnation: int = 0) -> Batch:
    return sampled_by(version, *(build_group(10 * version + i) for i in range(count)), incarnation=incarnation)


def sampled_by(version: int, *groups: Group, incarnation: int = 0) -> Batch:
    """Return a batch for a version that has sampled these groups itself."""
    adapter = AdapterRef(version, incarnation, "nowhere")
    return Batch(version, tuple(replace(group, adapter=adapter) for group in groups))


def update(learner: "LoraLearner", batch: Batch, progress: float = 0.0) -> UpdateStats:
    groups = tuple(weighed(group, learner.config) for group in batch.groups)
    learner.accumulate(replace(batch, groups=groups))
    config = learner.config
    return learner.step(learning_rate(config.learner, learner.version, progress, config.budget.updates))


def episode(sample: Sample, *given: tuple[int, int]) -> Sample:
    """Return the sample as an episode in which an environment wrote these spans."""
    one = replace(sample, given=given)
    return replace(one, logprobs=tuple(sample.logprobs[place] for place in sampled_places(one)))


def sampled_places(sample: Sample) -> list[int]:
    known = {place for span in sample.given for place in range(*span)}
    return [place for place in range(len(sample.token_ids)) if place not in known]


def two_and_three_turns(index: int) -> Group:
    """Return a group of episodes: of two turns, of three, without a call, and of two that a result ended."""
    group = build_group(index, (1.0, 0.0, 0.0, 1.0), response_tokens=(14, 20))
    two, three, none, cut = group.samples
    return replace(group, samples=(episode(two, (4, 7)), episode(three, (1, 3), (8, 12)), none, episode(cut, (9, 14))))


def weights(learner: "LoraLearner") -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in learner.model.named_parameters() if p.requires_grad}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def own_attention(learner: "LoraLearner") -> torch.nn.Module:
    """Return a copy of the learner's model with transformers' own attention."""
    model = copy.deepcopy(learner.model)
    model.get_base_model().set_attn_implementation("sdpa")
    return model.eval()


def distributions(model: torch.nn.Module, group: Group, number: int, temperature: float) -> torch.Tensor:
    """Return log-probabilities of the whole vocabulary at a sample's sampled tokens, [t, v], from full logits."""
    prompt, response = group.problem.prompt_ids, group.samples[number].token_ids
    logits = model(input_ids=torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
    return (logits[sampled_places(group.samples[number])] / temperature).log_softmax(-1)


def reference_logprobs(model: torch.nn.Module, group: Group, number: int, temperature: float) -> torch.Tensor:
    sample = group.samples[number]
    response = torch.tensor([sample.token_ids[place] for place in sampled_places(sample)])
    return distributions(model, group, number, temperature).gather(1, response[:, None])[:, 0]


def assert_step(learner: "LoraLearner", before: dict[str, torch.Tensor], model: torch.nn.Module, norm: float) -> None:
    """Compare the first moments with one AdamW step from the state `before` with the gradient in `model`."""
    clip = min(1.0, learner.config.learner.max_grad_norm / norm)
    moments = learner._optimizer.state()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            expected = 0.9 * before[f"model.{name}.exp_avg"] + 0.1 * clip * parameter.grad
            torch.testing.assert_close(moments[f"model.{name}.exp_avg"], expected, rtol=1e-4, atol=1e-7)


def gradient_norm(model: torch.nn.Module) -> float:
    return torch.stack([p.grad.norm() for p in model.parameters() if p.requires_grad]).norm().item()


def spoil(group: Group) -> Group:
    """Make the engine's log-probability of one token NaN, and with it the loss."""
    sample = group.samples[1]
    spoilt = replace(sample, logprobs=(math.nan, *sample.logprobs[1:]))
    return replace(group, samples=(group.samples[0], spoilt, *group.samples[2:]))


def bind(model: nn.Module) -> nn.Module:
    """Bind the forward methods of a model's MLPs and norms into them, as liger-kernel does: each is in a cycle then."""
    for module in model.modules():
        if type(module).__name__.endswith(("MLP", "RMSNorm")):
            module.__dict__["forward"] = type(module).forward.__get__(module)
    return model


@contextmanager
def leaving_no_module() -> Iterator[None]:
    """Fail if more modules are there afterwards, while the collector does not happen to run."""

    def count() -> int:
        return sum(issubclass(type(each), nn.Module) for each in gc.get_objects())

    gc.collect()
    before = count()
    gc.disable()
    try:
        yield
        assert count() == before
    finally:
        gc.enable()
