"""Imitation, and the reference that it leaves, with a real tiny model."""

import math
import re
from pathlib import Path

import pytest
import torch

from microbudget_rl.actors.messages import Batch
from tests.conftest import build_group
from tests.learner import helpers
from tests.learner.helpers import Make, batch, same, update, weights

pytestmark = pytest.mark.long

SETTINGS = {"warm_start.source": "self", "warm_start.learning_rate": 1e-2, "algorithm.kl": 0.1}


@pytest.mark.parametrize("budget", [10_000, 60, 1])
def test_imitation_is_the_adamw_step_of_the_mean_log_likelihood(make: Make, budget: int):
    """Compare with full logits and autograd, whatever the micro-batches, where B is not zero and all weights learn."""
    learner = make(SETTINGS | {"learner.tokens_per_microbatch": budget, "rollout.temperature": 0.8})
    learner.imitate((build_group(1),), 0.0)
    group, model, before = build_group(2), helpers.own_attention(learner), learner._optimizer.state()
    loss = -torch.cat([helpers.reference_logprobs(model, group, i, 0.8) for i in range(len(group.samples))]).mean()
    loss.backward()
    norm = helpers.gradient_norm(model)
    assert learner.imitate((group,), 0.25) == (pytest.approx(loss.item(), rel=1e-4), "")
    helpers.assert_step(learner, before, model, norm)


@pytest.mark.parametrize("reference", ["start", "base"])
def test_drift_is_measured_from_the_imitating_model(make: Make, reference: str):
    learner, groups = make(SETTINGS | {"algorithm.reference": reference}), batch().groups
    first, *_, last = [learner.imitate(groups[:1], n / 20)[0] for n in range(20)]
    assert last < 0.7 * first
    before = weights(learner)
    learner.imitate(groups[:1], 1.0)
    assert same(before, weights(learner)), "the rate has fallen to zero"
    learner.publish()
    moments = [value for name, value in learner._optimizer.state().items() if "exp_avg" in name]
    assert (len(moments) > 0, any(moment.any() for moment in moments), learner._steps) == (True, False, 0)
    found, scores = learner.inspect(groups), learner.score(groups[:1])[0]
    estimate = update(learner, Batch(0, groups)).metrics["policy/kl_to_base"]
    assert (found.kl_to_base == 0, estimate < 1e-6) == ((reference == "start"),) * 2
    assert all((score.policy == score.reference) == (reference == "start") for score in scores)
    assert all(score.policy != pytest.approx(score.base, abs=0.1) for score in scores)
    after = learner.inspect(groups)
    assert (after.base_entropy, after.kl_to_base > 0) == (found.base_entropy, True)


def test_a_restored_warm_start_repeats_the_uninterrupted_one(make: Make, tmp_path: Path):
    """Restore in its middle, at its end, and after an update, whose reference must still be version 0."""
    settings = SETTINGS | {"model.dtype": "bfloat16", "lora.dropout": 0.1}
    learners = [make(settings)]

    def restored() -> None:
        learners[0].save(tmp_path)
        learners.append(make(settings))
        learners[-1].restore(tmp_path, incarnation=0)

    for step in range(5):
        assert len({one.imitate((build_group(step),), step / 5)[0] for one in learners}) == 1
        if step == 2:
            restored()
    for one in learners:
        one.publish()
    for version in range(2):
        restored()
        assert len({update(one, batch(version)).metrics["grad_norm"] for one in learners}) == 1
    found = [one.inspect((build_group(9),)) for one in learners]
    assert found[0].kl_to_base > 0
    assert found == found[:1] * 4
    assert all(same(one._optimizer.state(), learners[0]._optimizer.state()) for one in learners)


@pytest.mark.parametrize(("factor", "words"), [(math.nan, "loss of step 2 .* is nan"), (1.0, "gradient of step 2 ")])
def test_what_is_not_finite_skips_the_step(make: Make, factor: float, words: str):
    learner, given = make(SETTINGS), (build_group(1),)
    learner.imitate(given, 0.0)
    before = weights(learner)

    def spoil(_: object, __: object, output: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        output[0].register_hook(lambda gradient: gradient * math.inf)
        return output[0] * factor, output[1]

    hook = learner.policy.register_forward_hook(spoil)
    assert re.search(words, learner.imitate(given, 0.5)[1])
    assert (same(before, weights(learner)), learner._steps) == (True, 1)
    hook.remove()
    assert not learner.imitate(given, 0.5)[1]
    assert not same(before, weights(learner))
