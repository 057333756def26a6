"""For the tests of the learner: batches, updates, and log-probabilities the plain way."""

import copy
from collections.abc import Callable

import torch

from actors.messages import AdapterRef, Batch, Group, UpdateStats
from learner.learner import LoraLearner

Build = Callable[..., Group]


def batch(build: Build, version: int = 0, count: int = 3, incarnation: int = 0) -> Batch:
    groups = (build(10 * version + i, adapter=AdapterRef(version, incarnation, "nowhere")) for i in range(count))
    return Batch(version, tuple(groups))


def update(learner: LoraLearner, batch: Batch, progress: float = 0.0) -> UpdateStats:
    learner.accumulate(batch)
    return learner.step(progress)


def weights(learner: LoraLearner) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in learner.model.named_parameters() if p.requires_grad}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def own_attention(learner: LoraLearner) -> torch.nn.Module:
    """A copy of the learner's model with transformers' own attention."""
    model = copy.deepcopy(learner.model)
    model.get_base_model().set_attn_implementation("sdpa")
    return model.eval()


def reference_logprobs(model: torch.nn.Module, group: Group, number: int, temperature: float) -> torch.Tensor:
    """Full logits, log_softmax, gather."""
    prompt, response = group.problem.prompt_ids, group.samples[number].token_ids
    logits = model(input_ids=torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
    return (logits / temperature).log_softmax(-1).gather(1, torch.tensor(response)[:, None])[:, 0]
