"""The learner with transformers, PEFT and DeepSpeed on a tiny model."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from microbudget_rl.actors.messages import AdapterRef, Batch, Group
from microbudget_rl.conf.schema import Config
from microbudget_rl.learner.examples import examples
from microbudget_rl.learner.learner import LoraLearner, StaleBatch
from microbudget_rl.learner.model.adapter import adapter_norms
from microbudget_rl.learner.packing import Tokens, pack
from tests.conftest import build_group, weighed
from tests.learner.algorithm.reference import Response, divisor, slope
from tests.learner.helpers import (
    Make,
    assert_step,
    batch,
    distributions,
    gradient_norm,
    own_attention,
    reference_logprobs,
    same,
    sampled_by,
    sampled_places,
    spoil,
    two_and_three_turns,
    update,
    weights,
)

pytestmark = pytest.mark.long

ALGORITHMS: dict[str, dict[str, Any]] = {
    "grpo": {},
    "token-tis": {"mismatch": "token_tis"},
    "sequence-mask": {"mismatch": "sequence_mask", "aggregation": "sequence_mean", "advantages": "leave_one_out"},
    "dr-grpo": {"advantages": "mean_only", "aggregation": "constant", "mismatch": "icepop"},
    "dapo": {"mismatch": "bypass", "clip_low": 0.2, "clip_high": 0.28, "dual_clip": 3.0, "mask_truncated": True},
    "gspo": {"mismatch": "bypass", "clip_low": 0.5, "clip_high": 0.8, "ratio": "sequence"},
    "cispo": {"mismatch": "bypass", "clip_high": 1.0, "surrogate": "cispo"},
    "maxrl": {"advantages": "over_mean"},
    "regularised": {"kl": 0.1, "entropy": 0.05, "mask_truncated": True},
}


def reference_gradient(
    model: torch.nn.Module, groups: tuple[Group, ...], config: Config, olds: list[list[float]] | None = None
) -> list[list[float]]:
    """Add the gradient of the whole batch's loss to the parameters of `model`, with each token's slope from
    `reference.py` and full logits. Return the log-probabilities. olds: those before the first step.
    """
    algorithm, temperature, limit = config.algorithm, config.rollout.temperature, config.rollout.max_response_tokens
    samples = [(group, number) for group in groups for number in range(len(group.samples))]
    tokens = sum(len(sampled_places(group.samples[number])) for group, number in samples)
    weighed_groups = [weighed(group, config) for group in groups]
    known = {example.name: example for example in examples(weighed_groups, algorithm.regularised)}
    found, loss = [], torch.zeros(())
    for place, (group, number) in enumerate(samples):
        sample = group.samples[number]
        theta = reference_logprobs(model, group, number, temperature)
        found.append(theta.tolist())
        with model.disable_adapter(), torch.no_grad():
            base = reference_logprobs(model, group, number, temperature)
        old = olds[place] if olds else theta.tolist()
        example = known.get(f"group {group.index} sample {number}")
        advantage = example.advantage if example else 0.0
        engine = list(sample.logprobs)
        old = engine if algorithm.mismatch == "bypass" else old
        response = Response(theta.tolist(), old, engine, base.tolist(), [], advantage)
        if group.rewards[number].masked or (algorithm.mask_truncated and sample.truncated):
            continue
        sizes = (len(samples), tokens, limit)
        slopes = [slope(algorithm, response, token, *sizes) for token in range(len(theta))]
        logprobs = distributions(model, group, number, temperature)
        entropy = -(logprobs.exp() * logprobs).sum()
        loss = loss + (torch.tensor(slopes) * theta).sum()
        loss = loss - algorithm.entropy * entropy / divisor(algorithm.aggregation, len(theta), *sizes)
    loss.backward()
    return found


def some_groups() -> tuple[Group, ...]:
    """Return groups with a timeout, without variance, with a single sample, of episodes, and a truncated response in
    each.
    """
    groups = (
        build_group(1, (1.0, 0.0, 0.2, 1.0)),
        build_group(2, (1.0, None, 0.0)),
        build_group(3, (0.0, 0.0)),
        build_group(4, (1.0, 1.0, 0.0, 1.0), prompt_tokens=20),
        build_group(5, (1.0,)),
        two_and_three_turns(6),
    )
    return tuple(
        replace(group, samples=(replace(group.samples[0], finish_reason="length"), *group.samples[1:]))
        for group in groups
    )


@pytest.mark.parametrize("name", ALGORITHMS)
def test_update_is_the_adamw_step_of_the_reference_loss(name: str, make: Make):
    learner = make({f"algorithm.{key}": value for key, value in ALGORITHMS[name].items()})
    groups = some_groups()
    update(learner, sampled_by(0, *groups))  # moves B off zero, so that A has a gradient
    model, before = own_attention(learner), learner._optimizer.state()
    reference_gradient(model, groups, learner.config)
    stats = update(learner, sampled_by(1, *groups))
    norm = gradient_norm(model)
    assert norm > 1e-3
    assert stats.metrics["grad_norm"] == pytest.approx(norm, rel=1e-4)
    assert_step(learner, before, model, norm)
    assert learner.version == stats.adapter.version == 2
    assert ("policy/kl_to_base" in stats.metrics) == (learner.config.algorithm.kl > 0)


def test_second_step_on_a_batch_has_the_ratio_to_the_policy_before_the_first(make: Make):
    """The reference starts from a learner that stops after the first step."""
    clipped = {"algorithm.mismatch": "token_tis", "algorithm.clip_low": 0.3, "algorithm.clip_high": 0.3}
    groups = some_groups()
    one, two = make(clipped), make(clipped | {"algorithm.steps_per_batch": 2})
    olds = reference_gradient(own_attention(one), groups, one.config)
    update(one, sampled_by(0, *groups))
    model = own_attention(one)
    reference_gradient(model, groups, two.config, olds)
    stats = update(two, sampled_by(0, *groups))
    assert_step(two, one._optimizer.state(), model, gradient_norm(model))
    assert (two.version, two._steps, stats.adapter.version) == (1, 2, 1)


@pytest.mark.parametrize("aggregation", ["token_mean", "sequence_mean", "constant"])
def test_gradient_does_not_depend_on_micro_batches(aggregation: str, make: Make):
    """Compare the first moments after a second step: one micro-batch, two, five or more, and single samples."""
    moments = []
    for budget in (10_000, 150, 60, 1):
        settings = {"algorithm.aggregation": aggregation, "learner.tokens_per_microbatch": budget}
        learner = make(settings)
        for version in range(2):
            update(learner, batch(version))
        moments.append({n: v for n, v in learner._optimizer.state().items() if n.endswith("exp_avg")})
    whole = moments[0]
    scale = torch.stack([value.norm() for value in whole.values()]).norm()
    for split in moments[1:]:
        error = torch.stack([(split[name] - whole[name]).norm() for name in whole]).norm()
        assert error <= 1e-5 * scale


@pytest.mark.parametrize("budget", [10_000, 60, 1])
def test_gradient_of_episodes_is_that_of_transformers_loss_without_given_tokens(budget: int, make: Make):
    """With advantage 1 and ratio 1, against labels of −100 on the prompt and on what the environment wrote."""
    learner = make({"learner.tokens_per_microbatch": budget, "rollout.temperature": 1.0})
    update(learner, batch(0))
    group = two_and_three_turns(6)
    scored = zip(group.samples, learner.score((group,))[0], strict=True)
    samples = tuple(replace(sample, logprobs=scores.policy) for sample, scores in scored)
    group = replace(group, samples=samples, adapter=AdapterRef(1, 0, "nowhere"), advantages=(1.0,) * 4)
    model, loss = own_attention(learner), torch.zeros(())
    for sample in group.samples:
        prompt, sampled = group.problem.prompt_ids, sampled_places(sample)
        labels = [-100] * (len(prompt) + len(sample.token_ids))
        for place in sampled:
            labels[len(prompt) + place] = sample.token_ids[place]
        found = model(input_ids=torch.tensor([prompt + sample.token_ids]), labels=torch.tensor([labels])).loss
        loss = loss + found * len(sampled) / group.tokens
    loss.backward()
    learner.accumulate(Batch(1, (group,)))
    for name, parameter in learner.model.named_parameters():
        if parameter.requires_grad:
            expected = model.get_parameter(name).grad
            assert (parameter.grad - expected).norm() <= 1e-5 * gradient_norm(model), name


def test_given_tokens_are_inputs_and_no_targets(make: Make):
    learner, group = make(), two_and_three_turns(6)
    update(learner, batch(0))
    (scores,) = learner.score((group,))
    assert [len(each.policy) for each in scores] == [each.sampled_tokens for each in group.samples]
    two = group.samples[0]
    other = replace(two, token_ids=(*two.token_ids[:5], two.token_ids[5] + 1, *two.token_ids[6:]))
    changed = learner.score((replace(group, samples=(other,)),))[0][0].policy
    assert changed[:4] == pytest.approx(scores[0].policy[:4], abs=1e-4)
    assert all(abs(a - b) > 1e-3 for a, b in zip(changed[4:], scores[0].policy[4:], strict=True))


def test_scores_before_the_step_are_the_old_versions(make: Make):
    asked, other = (make({"lora.dropout": 0.1}) for _ in range(2))
    for version in range(2):
        before = asked.score((build_group(9),))
        asked.accumulate(batch(version))
        assert asked.score((build_group(9),)) == before
        asked.step(asked.config.learner.learning_rate)
        update(other, batch(version))
    assert same(weights(asked), weights(other))


def test_batch_accumulated_again_counts_once(make: Make):
    twice, once = make(), make()
    twice.accumulate(batch(0))
    update(twice, batch(0))
    update(once, batch(0))
    assert same(weights(twice), weights(once))
    with pytest.raises(RuntimeError, match="no batch was accumulated"):
        once.step(0.0)


def test_scores(learner: LoraLearner):
    """Policy and base agree at version 0, both with the reference; an update moves the policy alone."""
    learner.policy.temperature = 0.7
    groups = (build_group(1), build_group(2, (1.0,), prompt_tokens=5))
    before = learner.score(groups)
    update(learner, batch())
    after = learner.score(groups)
    assert [len(scores) for scores in after] == [4, 1]
    for i, group in enumerate(groups):
        for number in range(len(group.samples)):
            with torch.no_grad():
                reference = reference_logprobs(own_attention(learner), group, number, 0.7)
            assert before[i][number].policy == pytest.approx(before[i][number].base, abs=1e-6)
            assert after[i][number].base == pytest.approx(before[i][number].base, abs=1e-6)
            assert after[i][number].policy == pytest.approx(reference.tolist(), abs=1e-5)
            assert after[i][number].policy != pytest.approx(after[i][number].base, abs=1e-3)


def test_metrics_count_the_samples_with_a_gradient(learner: LoraLearner):
    """A batch without variance makes a version with the same weights."""
    before, one = weights(learner), build_group(1)
    stats = update(learner, sampled_by(0, build_group(1, (1.0, 1.0)), build_group(2, (None, 1.0))))
    assert (stats.adapter.version, stats.metrics["tokens/trained"]) == (1, 0)
    assert same(before, weights(learner))
    metrics = update(learner, sampled_by(1, one, build_group(2, (0.0, 0.0))), 0.5).metrics
    assert metrics.keys() >= {"loss", "policy/entropy", "mismatch/ess", "clip/low", "adapter/norm/q_proj"}
    assert metrics["tokens/trained"] == sum(len(sample.token_ids) for sample in one.samples)
    assert all(math.isfinite(value) for value in metrics.values())


def test_figures_of_the_policy_cover_the_samples_with_an_advantage(make: Make):
    """An entropy term has the update learn from others too."""
    every, same = make({"algorithm.entropy": 1e-9}), build_group(2, (1.0, 1.0))
    less, more = (update(each, sampled_by(0, build_group(1), same)).metrics for each in (make(), every))
    for name in ("policy/entropy", "mismatch/k3", "mismatch/ess", "clip/low"):
        assert more[name] == pytest.approx(less[name], abs=1e-6)
    assert more["tokens/trained"] > less["tokens/trained"]
    assert "policy/entropy" not in update(every, sampled_by(1, build_group(2, (1.0,)))).metrics


def test_movement_is_measured_on_the_samples_with_an_advantage(make: Make):
    """The engine was certain of the stale samples. An entropy term has the update learn from others too."""
    found = []
    for entropy in (0.0, 1e-9):
        learner = make({"algorithm.entropy": entropy})
        update(learner, batch())
        stale, same = build_group(1), build_group(2, (1.0, 1.0), adapter=AdapterRef(1, 0, "nowhere"))
        samples = tuple(replace(sample, logprobs=(0.0,) * len(sample.logprobs)) for sample in stale.samples)
        found.append(learner.accumulate(Batch(1, (replace(stale, samples=samples), same))))
    assert [measured.examples for measured in found] == [4, 6]
    assert [measured.staleness for measured in found] == [1.0, 1.0]
    assert found[0].kl == pytest.approx(found[1].kl, rel=1e-4)
    assert found[0].kl > 1.0
    assert learner.accumulate(Batch(1, (same,))).staleness == 0


def test_stale_batches_are_refused(learner: LoraLearner):
    for version in range(2):
        update(learner, batch(version, 1))
    assert update(learner, Batch(2, (build_group(1, adapter=AdapterRef(1, 0, "")),)), 0.0).metrics["staleness/max"] == 1
    for version, adapter, words in (
        (3, AdapterRef(1, 0, ""), "max_staleness"),
        (3, AdapterRef(4, 0, ""), "max_staleness"),
        (3, AdapterRef(3, 1, ""), "abandoned history"),
        (2, AdapterRef(2, 0, ""), "version 2 reached"),
    ):
        with pytest.raises(StaleBatch, match=words):
            update(learner, Batch(version, (build_group(1, adapter=adapter),)))


@pytest.mark.parametrize(
    ("dtype", "offload"), [("float32", "cpu"), ("float32", "none"), ("bfloat16", "cpu"), ("bfloat16", "none")]
)
def test_a_nan_loss_skips_the_update_without_a_trace(dtype: str, offload: str, make: Make):
    """The other learner never sees the spoilt batch. Gradients have accumulated when the NaN is found."""
    settings = {"model.dtype": dtype, "learner.offload": offload, "learner.tokens_per_microbatch": 1}
    learner, other = make(settings), make(settings)
    for one in (learner, other):
        update(one, batch(0))
    before, groups = weights(learner), batch(1).groups
    stats = update(learner, Batch(1, (*groups[:2], spoil(groups[2]))), 0.0)
    assert "group 12 sample 1" in stats.fault
    assert "loss of update 2 is nan" in stats.fault
    assert stats.adapter.version == 2
    assert stats.fault
    assert all(math.isfinite(value) for value in stats.metrics.values())
    assert same(before, weights(learner))
    other.version = 2
    for one in (learner, other):
        assert update(one, batch(2)).fault == ""
    assert not same(before, weights(learner))
    assert same(weights(other), weights(learner))
    assert same(other._optimizer.state(), learner._optimizer.state())
    assert learner._steps == 2


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_infinite_gradient_skips_the_update(dtype: str, make: Make):
    learner = make({"model.dtype": dtype})
    before = weights(learner)

    def explode(_: object, __: object, output: tuple[torch.Tensor, torch.Tensor]) -> None:
        output[0].register_hook(lambda gradient: gradient * math.inf)

    hook = learner.policy.register_forward_hook(explode)
    stats = update(learner, batch(0))
    assert "gradient of update 1 is not finite" in stats.fault
    assert same(before, weights(learner))
    hook.remove()
    assert update(learner, batch(1)).fault == ""
    assert not same(before, weights(learner))


def test_recomputed_activations_change_no_gradient_and_keep_less(make: Make):
    norms, kept = [], []
    for setting in ("off", "on"):
        learner = make({"learner.gradient_checkpointing": setting})
        sizes: list[int] = []
        learner.policy.train()
        group = build_group(1)
        (part,) = pack([Tokens(group.problem.prompt_ids, group.samples[0].token_ids)], 1000)
        with torch.autograd.graph.saved_tensors_hooks(lambda t, sizes=sizes: sizes.append(t.nbytes) or t, lambda t: t):
            learner.policy(part)
        kept.append(sum(sizes))
        update(learner, batch(0))
        norms.append(update(learner, batch(1)).metrics["grad_norm"])
    assert norms[1] == pytest.approx(norms[0], rel=1e-5)
    assert kept[1] < kept[0] / 2


def test_inspection_compares_the_policy_with_the_base(learner: LoraLearner):
    groups = batch().groups
    fresh = learner.inspect(groups)
    assert fresh.entropy == fresh.base_entropy > 0
    assert fresh.kl_to_base == pytest.approx(0.0, abs=1e-6)
    assert set(fresh.effective_rank.values()) == {0.0}
    for version in range(3):
        update(learner, batch(version))
    found, again = learner.inspect(groups), learner.inspect(groups)
    assert found == again
    assert found.version == 3
    assert found.base_entropy == fresh.entropy != found.entropy
    assert found.kl_to_base > 0
    assert found.adapter_norm == adapter_norms(learner.model)
    assert set(found.effective_rank) == {f"{n}.{kind}" for n in range(2) for kind in learner.config.lora.target_modules}
    assert all(1 <= rank <= learner.config.lora.rank for rank in found.effective_rank.values())
