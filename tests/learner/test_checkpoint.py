import json
from dataclasses import replace
from pathlib import Path

import pytest

from conf.schema import Config
from learner.checkpoint import FACTS_FILE, expected_facts, foreign, write_checkpoint


def test_own_checkpoint_is_known_whatever_its_version(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, expected_facts(Config(), version=12, steps=11), {})
    assert foreign(tmp_path, expected_facts(Config())) is None


def test_several_steps_a_batch_make_more_steps_than_updates(tmp_path: Path) -> None:
    config = Config()
    write_checkpoint(tmp_path, expected_facts(config, version=2, steps=4), {})
    assert foreign(tmp_path, expected_facts(config)) == "4 optimizer steps in 2 updates cannot be"
    config.algorithm.steps_per_batch = 2
    write_checkpoint(tmp_path, expected_facts(config, version=2, steps=4), {})
    assert foreign(tmp_path, expected_facts(config)) is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"rank": 8}, "was made with rank 8, this run has 32"),
        ({"model": "another"}, "was made with model another, this run has embedded:smollm2-135m"),
        ({"seed": 1}, "was made with seed 1, this run has 0"),
        ({"steps": -1}, "-1 optimizer steps in 0 updates cannot be"),
    ],
)
def test_foreign_checkpoint_is_told_apart(tmp_path: Path, change: dict[str, object], reason: str) -> None:
    write_checkpoint(tmp_path, replace(expected_facts(Config()), **change), {})  # type: ignore[arg-type]
    assert foreign(tmp_path, expected_facts(Config())) == reason


@pytest.mark.parametrize("content", ["", "[]", json.dumps({"version": 1}), '{"ver'])
def test_unreadable_facts_are_named(tmp_path: Path, content: str) -> None:
    (tmp_path / FACTS_FILE).write_text(content)
    assert str(foreign(tmp_path, expected_facts(Config()))).startswith("cannot be read (")
