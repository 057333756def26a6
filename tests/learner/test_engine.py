"""The learner with its real parts: transformers, PEFT and DeepSpeed on a tiny model."""

import copy
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from actors.messages import AdapterRef, Batch, Group
from conf.errors import BadInput
from conf.schema import Config
from learner.advantages import group_advantages
from learner.engine import Diverged, LoraLearner, StaleBatch
from learner.losses import importance_weights
from learner.microbatches import Tokens

Build = Callable[..., Group]


@pytest.fixture
def learner(tiny_config: Config, tiny_model: Path, tmp_path: Path) -> LoraLearner:
    return LoraLearner(tiny_config, str(tiny_model), tmp_path / "adapters")


def batch(build: Build, version: int = 0, count: int = 3, incarnation: int = 0) -> Batch:
    groups = (build(10 * version + i, adapter=AdapterRef(version, incarnation, "nowhere")) for i in range(count))
    return Batch(version, tuple(groups))


def weights(learner: LoraLearner) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in learner.model.named_parameters() if p.requires_grad}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def reference_logprobs(model: torch.nn.Module, group: Group, number: int, temperature: float) -> torch.Tensor:
    """Full logits, log_softmax, gather."""
    prompt, response = group.problem.prompt_ids, group.samples[number].token_ids
    logits = model(input_ids=torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
    return (logits / temperature).log_softmax(-1).gather(1, torch.tensor(response)[:, None])[:, 0]


def test_update_is_the_adamw_step_of_the_reference_loss(
    learner: LoraLearner, build_group: Build, tiny_config: Config
) -> None:
    groups = (
        build_group(1, (1.0, 0.0, 0.2, 1.0)),
        build_group(2, (1.0, None, 0.0)),
        build_group(3, (0.0, 0.0)),
        build_group(4, (1.0, 1.0, 0.0, 1.0), prompt_tokens=20),
    )
    learner.update(Batch(0, groups), 0.0)  # moves B off zero, so that A has a gradient
    groups = tuple(Group(g.index, g.problem, AdapterRef(1, 0, ""), g.samples, g.rewards) for g in groups)
    model = copy.deepcopy(learner.model)
    state = learner._optimizer.state()

    total = sum(len(sample.token_ids) for group in groups for sample in group.samples)
    loss = torch.zeros(())
    for group in groups:
        rewards = torch.tensor([reward.total for reward in group.rewards])
        advantages = group_advantages(rewards, torch.tensor([reward.masked for reward in group.rewards]))
        for number, sample in enumerate(group.samples):
            logprobs = reference_logprobs(model, group, number, tiny_config.rollout.temperature)
            weight = importance_weights(logprobs, torch.tensor(sample.logprobs), tiny_config.learner.importance_cap)
            loss = loss - (weight * advantages[number] * logprobs).sum() / total
    loss.backward()

    stats = learner.update(Batch(1, groups), 0.0)
    norm = torch.stack([p.grad.norm() for p in model.parameters() if p.requires_grad]).norm()
    assert stats.metrics["grad_norm"] == pytest.approx(norm.item(), rel=1e-5)
    clip = min(1.0, tiny_config.learner.max_grad_norm / norm.item())
    moments = learner._optimizer.state()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            expected = 0.9 * state[f"model.{name}.exp_avg"] + 0.1 * clip * parameter.grad
            torch.testing.assert_close(moments[f"model.{name}.exp_avg"], expected, rtol=1e-4, atol=1e-8)
    assert learner.version == stats.adapter.version == 2


def test_gradient_does_not_depend_on_the_split(
    tiny_config: Config, tiny_model: Path, tmp_path: Path, build_group: Build
) -> None:
    """The first moments after a second step: one micro-batch against two, five or more, and single samples."""
    moments = []
    for budget in (10_000, 150, 60, 1):
        tiny_config.learner.tokens_per_microbatch = budget
        learner = LoraLearner(tiny_config, str(tiny_model), tmp_path)
        for version in range(2):
            learner.update(batch(build_group, version), 0.0)
        moments.append({n: v for n, v in learner._optimizer.state().items() if n.endswith("exp_avg")})
    whole = moments[0]
    scale = torch.stack([value.norm() for value in whole.values()]).norm()
    for split in moments[1:]:
        error = torch.stack([(split[name] - whole[name]).norm() for name in whole]).norm()
        assert error <= 1e-5 * scale


@pytest.mark.parametrize(("compiled", "updates"), [(True, 20), (False, 3)])
def test_restored_run_repeats_the_uninterrupted_one(
    tiny_config: Config,
    tiny_model: Path,
    tmp_path: Path,
    build_group: Build,
    monkeypatch: pytest.MonkeyPatch,
    compiled: bool,
    updates: int,
) -> None:
    """With DeepSpeed's compiled Adam (whose bias correction drifts only after many steps) and with torch's."""
    if not compiled:
        monkeypatch.setattr("learner.zero.cpu_adam_available", lambda: False)
    tiny_config.model.dtype = "bfloat16"
    tiny_config.lora.dropout = 0.1
    straight = LoraLearner(tiny_config, str(tiny_model), tmp_path / "a")
    assert straight.model.get_base_model().model.rotary_emb.inv_freq.dtype == torch.float32
    for version in range(updates):
        straight.update(batch(build_group, version, 1), 0.0)
    (tmp_path / "checkpoint").mkdir()
    straight.save(tmp_path / "checkpoint")
    resumed = LoraLearner(tiny_config, str(tiny_model), tmp_path / "b")
    resumed.restore(tmp_path / "checkpoint", incarnation=1)
    assert same(weights(straight), weights(resumed))
    for version in (updates, updates + 1):
        straight.update(batch(build_group, version, 1), 0.0)
        stats = resumed.update(batch(build_group, version, 1, incarnation=1), 0.0)
    assert stats.adapter.name == f"policy-v{updates + 2}-r1"
    assert same(weights(straight), weights(resumed))
    assert same(straight._optimizer.state(), resumed._optimizer.state())


def test_learner_goes_back_to_a_checkpoint_in_place(learner: LoraLearner, build_group: Build, tmp_path: Path) -> None:
    """Restoring undoes later updates, momentum included, and forgets a batch that was given up half-way."""
    learner.save(tmp_path)
    before, state = weights(learner), learner._optimizer.state()
    first = learner.update(batch(build_group, 0), 0.0).metrics["grad_norm"]
    assert not same(before, weights(learner))
    (part,) = learner._pack([Tokens((5, 6, 7), (8, 9))])
    learner._optimizer.backward(learner._optimizer.engine(part)[0].sum())
    learner.restore(tmp_path, 0)
    assert same(before, weights(learner))
    assert same(state, learner._optimizer.state())
    again = learner.update(batch(build_group, 0), 0.0).metrics["grad_norm"]
    assert again == first


def test_group_of_an_abandoned_history_is_refused(learner: LoraLearner, build_group: Build, tmp_path: Path) -> None:
    learner.save(tmp_path)
    learner.restore(tmp_path, 1)
    with pytest.raises(StaleBatch, match="abandoned history"):
        learner.update(batch(build_group, 0), 0.0)


def test_damaged_or_foreign_checkpoints_are_refused(learner: LoraLearner, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        learner.restore(tmp_path, 1)
    learner.save(tmp_path)
    facts = tmp_path / "learner.json"
    good = facts.read_text()
    facts.write_text(json.dumps(json.loads(good) | {"rank": 8}))
    with pytest.raises(BadInput, match="rank 8, this run has 4"):
        learner.restore(tmp_path, 1)
    facts.write_text(good)
    state = tmp_path / "learner.safetensors"
    state.write_bytes(state.read_bytes()[:-100])
    with pytest.raises(BadInput, match="cannot be read"):
        learner.restore(tmp_path, 1)


def test_published_adapter_gives_the_same_logits_in_peft(
    learner: LoraLearner, tiny_model: Path, build_group: Build
) -> None:
    adapter = learner.update(batch(build_group), 0.0).adapter
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    loaded = PeftModel.from_pretrained(base, adapter.path)
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        torch.testing.assert_close(loaded(ids).logits, learner.model.eval()(ids).logits, rtol=0, atol=0)
    saved = load_file(Path(adapter.path) / "adapter_model.safetensors")
    assert max(tensor.abs().max() for name, tensor in saved.items() if "lora_B" in name) > 0
    assert sorted(path.name for path in Path(adapter.path).iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]


def test_scores(learner: LoraLearner, build_group: Build, tiny_config: Config) -> None:
    """Policy and base agree at version 0, both with the reference; an update moves the policy alone."""
    tiny_config.rollout.temperature = learner.policy.temperature = 0.7
    groups = (build_group(1), build_group(2, (1.0,), prompt_tokens=5))
    before = learner.score(groups)
    learner.update(batch(build_group), 0.0)
    after = learner.score(groups)
    assert [len(scores) for scores in after] == [4, 1]
    for i, group in enumerate(groups):
        for number in range(len(group.samples)):
            with torch.no_grad():
                reference = reference_logprobs(learner.model.eval(), group, number, 0.7)
            assert before[i][number].policy == pytest.approx(before[i][number].base, abs=1e-6)
            assert after[i][number].base == pytest.approx(before[i][number].base, abs=1e-6)
            assert after[i][number].policy == pytest.approx(reference.tolist(), abs=1e-5)
            assert after[i][number].policy != pytest.approx(after[i][number].base, abs=1e-3)


def test_batch_without_variance_makes_a_version_with_the_same_weights(learner: LoraLearner, build_group: Build) -> None:
    before = weights(learner)
    stats = learner.update(Batch(0, (build_group(1, (1.0, 1.0)), build_group(2, (None, 1.0)))), 0.0)
    assert stats.adapter.version == 1
    assert stats.metrics["tokens/trained"] == 0
    assert same(before, weights(learner))


def test_metrics(learner: LoraLearner, build_group: Build) -> None:
    one = build_group(1)
    metrics = learner.update(Batch(0, (one, build_group(2, (0.0, 0.0)))), 0.5).metrics
    assert metrics.keys() >= {
        "loss",
        "grad_norm",
        "learning_rate",
        "policy/entropy",
        "mismatch/abs_mean",
        "mismatch/p99",
        "mismatch/max",
        "mismatch/effective_share",
        "mismatch/truncated",
        "staleness/max",
        "tokens/trained",
        "learner/tokens_per_second",
        "learner/padding",
        "time/publish",
    }
    assert metrics["tokens/trained"] == sum(len(sample.token_ids) for sample in one.samples)
    assert all(torch.tensor(value).isfinite() for value in metrics.values())


def test_stale_batches_are_refused(learner: LoraLearner, build_group: Build) -> None:
    for version in range(2):
        learner.update(batch(build_group, version, 1), 0.0)
    assert learner.update(Batch(2, (build_group(1, adapter=AdapterRef(1, 0, "")),)), 0.0).metrics["staleness/max"] == 1
    with pytest.raises(StaleBatch, match="max_staleness"):
        learner.update(Batch(3, (build_group(1, adapter=AdapterRef(1, 0, "")),)), 0.0)
    with pytest.raises(StaleBatch, match="max_staleness"):
        learner.update(Batch(3, (build_group(1, adapter=AdapterRef(4, 0, "")),)), 0.0)
    with pytest.raises(StaleBatch, match="version 2 reached"):
        learner.update(batch(build_group, 2), 0.0)


def test_a_loss_that_is_not_finite_names_its_samples(learner: LoraLearner, build_group: Build) -> None:
    with torch.no_grad():
        learner.model.get_base_model().get_decoder().norm.weight[0] = float("nan")
    before = weights(learner)
    with pytest.raises(Diverged, match="group 1 sample 0"):
        learner.update(Batch(0, (build_group(1),)), 0.0)
    assert same(before, weights(learner))
