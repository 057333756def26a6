import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.schema import Config
from microbudget_rl.learner.training_state import FACTS_FILE, STATE_FILE, misfit, write_checkpoint
from tests.learner.helpers import Make, batch, same, update, weights

if TYPE_CHECKING:
    from microbudget_rl.learner.learner import LoraLearner


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"rank": 8}, ("rank 8", "32")),
        ({"model": "another"}, ("model another", Config().model.path)),
        ({"seed": 1}, ("seed 1", "0")),
        ({"steps": -1}, ("steps=-1",)),
        ({"steps": "1"}, ("steps='1'",)),
    ],
)
def test_a_foreign_checkpoint_is_named(tmp_path: Path, change: dict[str, Any], named: tuple[str, ...]):
    write_checkpoint(tmp_path, Config(), 0, 0, {})
    facts = tmp_path / FACTS_FILE
    facts.write_text(json.dumps(json.loads(facts.read_text()) | change))
    assert all(words in str(misfit(tmp_path, Config())) for words in named)


@pytest.mark.parametrize("content", ["", "[]", json.dumps({"version": 1}), '{"ver'])
def test_unreadable_facts_are_named(tmp_path: Path, content: str):
    (tmp_path / FACTS_FILE).write_text(content)
    assert FACTS_FILE in str(misfit(tmp_path, Config()))


def test_the_learner_refuses_damaged_checkpoints(learner: "LoraLearner", tmp_path: Path):
    def refused(words: str) -> None:
        with pytest.raises(BadInput, match=words):
            learner.restore(tmp_path, 1)

    refused("cannot be read")
    learner.save(tmp_path)
    facts, state = tmp_path / FACTS_FILE, tmp_path / STATE_FILE
    good = facts.read_text()
    facts.write_text(json.dumps(json.loads(good) | {"rank": 8}))
    refused("rank 8")
    facts.write_text(good)
    tensors = load_file(state)
    name = next(iter(tensors))
    save_file({**tensors, name: tensors[name] * float("nan")}, state)
    refused(re.escape(name))
    state.write_bytes(state.read_bytes()[:-100])
    refused("cannot be read")


@pytest.mark.parametrize(("compiled", "updates"), [(True, 20), (False, 3)])
def test_restored_run_repeats_the_uninterrupted_one(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiled: bool, updates: int
):
    """DeepSpeed's compiled Adam, whose bias correction drifts only after many steps, and torch's."""
    if not compiled:
        monkeypatch.setattr("microbudget_rl.learner.optimizer.cpu_adam_available", lambda: False)
    straight, resumed = (make({"model.dtype": "bfloat16", "lora.dropout": 0.1}) for _ in range(2))
    assert straight.model.get_base_model().model.rotary_emb.inv_freq.dtype == torch.float32
    for version in range(updates):
        update(straight, batch(version, 1))
    straight.save(tmp_path)
    resumed.restore(tmp_path, incarnation=1)
    assert same(weights(straight), weights(resumed))
    for version in (updates, updates + 1):
        update(straight, batch(version, 1))
        stats = update(resumed, batch(version, 1, incarnation=1))
    assert stats.adapter.name == f"policy-v{updates + 2}-r1"
    assert same(weights(straight), weights(resumed))
    assert same(straight._optimizer.state(), resumed._optimizer.state())


def test_a_restore_undoes_later_updates(learner: "LoraLearner", tmp_path: Path):
    """It undoes momentum too, and forgets an accumulated batch."""
    learner.save(tmp_path)
    before, state = weights(learner), learner._optimizer.state()
    first = update(learner, batch(0)).metrics["grad_norm"]
    assert not same(before, weights(learner))
    learner.accumulate(batch(1))
    learner.restore(tmp_path, 0)
    assert same(before, weights(learner))
    assert same(state, learner._optimizer.state())
    again = update(learner, batch(0)).metrics["grad_norm"]
    assert again == first
