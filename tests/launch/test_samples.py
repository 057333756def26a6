from collections.abc import Callable
from pathlib import Path

import pytest

from microbudget_rl.actors.storage.checkpoints import Checkpoints, link
from microbudget_rl.actors.storage.run_record import RunRecord
from microbudget_rl.launch import samples
from microbudget_rl.launch.reporting.tables import OUTCOMES, pairs_by_outcome
from tests.run_folders import sample, write_rows, write_run

BEFORE = {"a": "correct", "b": "correct", "c": "wrong", "d": "correct", "e": "wrong"}
AFTER = {"a": "wrong", "b": "unparsable", "c": "correct", "d": "correct", "e": "wrong"}
"""Verdicts by problem."""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = write_run(tmp_path / "mine")
    for name, statuses in (("base", BEFORE), ("final", AFTER)):
        texts = (
            (dict.fromkeys(("problem", "prompt", "response"), problem), status) for problem, status in statuses.items()
        )
        rows = [sample(0, False) | text | {"status": status} for text, status in texts for _ in range(2)]
        write_rows(folder / "samples" / f"eval-{name}.jsonl", rows)
    return folder


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "abc"),
        (["show=worse"], "ab"),
        (["show=better", "limit=1"], "c"),
        (["show=wrong"], "e"),
        (["verdict=unparsable"], "b"),
        (["show=all", "verdict=wrong"], "ae"),
    ],
)
def test_chosen_responses_are_shown(arguments: list[str], expected: str, run: Path, capsys: pytest.CaptureFixture[str]):
    assert samples.main([str(run), *arguments]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{expected[0]}\nreference answer: 1")
    cells = [line.split("│")[1:3] for line in said.splitlines() if line.count("│") == 3]
    assert "".join(after.strip() for _, after in cells if "," not in after) == expected
    assert [after.split(",")[0].strip() for _, after in cells if "," in after] == [AFTER[each] for each in expected]
    assert "4 right before, wrong after; 2 wrong before, right after" in " ".join(said.split())


def test_improvements_come_first_where_the_run_improved(run: Path):
    base, final = (RunRecord(run).samples(f"eval-{name}") for name in ("base", "final"))
    assert [next(iter(pairs_by_outcome(*rows))) for rows in ((base, final), (final, base))] == [*OUTCOMES.values()][:2]


def test_last_policy_is_shown_where_it_is_asked_for(
    run: Path, capsys: pytest.CaptureFixture[str], refused: Callable[..., str]
):
    checkpoints = Checkpoints(run / "checkpoints")
    for version in (10, 20, 30):
        checkpoints.path_of(version).mkdir(parents=True)
    link(checkpoints.folder / "latest", checkpoints.path_of(30))
    checkpoints.mark_best(20)
    for name, version in (("final", 20), ("last", 30)):
        row = sample(0, False) | {"problem": "a", "prompt": "a", "version": version, "response": f"update {version}"}
        write_rows(run / "samples" / f"eval-{name}.jsonl", [row])
    for checkpoint, version in (("", 20), ("best", 20), ("latest", 30), ("update-000030", 30)):
        assert samples.main([str(run), *([f"checkpoint={checkpoint}"] if checkpoint else [])]) == 0
        assert f"update {version}" in capsys.readouterr().out
    assert "update-000010" in refused(samples.main, [str(run), "checkpoint=update-000010"])
