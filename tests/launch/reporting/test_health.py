import json
from pathlib import Path
from typing import Any

import pytest

from launch.reporting import conclusion
from launch.reporting.health import flags
from launch.reporting.history import read_run
from rewards.problems.loading import OVERLAP_DROPPED, OVERLAP_KEPT, write_listing
from rewards.problems.rows import Pair, left_out_row
from tests.run_folders import metrics, write_run


def titles(folder: Path) -> dict[str, str]:
    """Level by title."""
    return {flag.title.replace("\N{NO-BREAK SPACE}", " "): flag.level for flag in flags(read_run(folder))}


def test_healthy_run_has_nothing_but_good_flags(tmp_path: Path) -> None:
    assert set(titles(write_run(tmp_path / "one")).values()) == {"good"}


@pytest.mark.parametrize(
    ("summary", "title", "level"),
    [
        ({"status": "failed"}, "The run failed", "bad"),
        ({"status": "halted"}, "The run stopped", "bad"),
        ({"status": "interrupted"}, "The run was interrupted", "warning"),
        ({"spent_s": 700.0}, "The budget was overrun", "warning"),
        ({"ledger": {"counts": {"deaths/rollout": 2}}}, "2 deaths survived", "warning"),
        ({"ledger": {"counts": {"warnings/disk": 1}}}, "Disk ran low", "warning"),
        ({"ledger": {"counts": {"warnings/wandb": 40}}}, "wandb has lost 40 calls", "warning"),
        ({"ledger": {"counts": {"warnings/look failed": 1}}}, "The host could not be looked at", "warning"),
        ({"ledger": {"counts": {"updates/skipped": 1}}}, "1 update skipped", "warning"),
    ],
)
def test_what_went_wrong_is_said(tmp_path: Path, summary: dict[str, Any], title: str, level: str) -> None:
    assert titles(write_run(tmp_path / "one", **summary))[title] == level


def test_a_reward_function_that_failed_is_named(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "one", ledger={"counts": {"rewards/failed": 8}})
    event = {"update": 1, "event": "reward function failed", "detail": "'mine:tone' returned None, on problem p3"}
    (folder / "events.jsonl").write_text(json.dumps(event) + "\n")
    [flag] = [flag for flag in flags(read_run(folder)) if "without a reward" in flag.title]
    assert (flag.level, flag.detail) == ("warning", event["detail"])
    assert "8" in flag.title


@pytest.mark.parametrize(
    ("change", "title", "level"),
    [
        ({"canary/decided": 0.0}, "The adapter check stayed undecided", "warning"),
        ({"canary/decided": 1.0}, "The rollouts used the right adapter", "good"),
        ({"verify/timeout": 1}, "10 verdicts timed out", "note"),
        ({"verify/timeout": 20}, "200 verdicts timed out", "warning"),
        ({"completion/truncated": 0.4}, "40.0 % of the responses were cut off", "warning"),
        ({"groups/zero_variance": 0.9}, "90 % of the groups had no variance", "note"),
        ({"staleness/max": 2.0}, "Groups were at most 2 versions old", "bad"),
    ],
)
def test_what_the_updates_show_is_said(tmp_path: Path, change: dict[str, float], title: str, level: str) -> None:
    folder = write_run(tmp_path / "one", updates=10)
    rows = [metrics(update, 10) | change for update in range(1, 11)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert titles(folder)[title] == level


def test_a_run_far_behind_its_plan_is_not_well(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "one", updates=1, status="budget_exhausted")
    planned = {"updates": 15, "update_s": 30.0, "start_s": 80.0}
    (folder / "origin.json").write_text(json.dumps({"planned": planned}))
    (flag,) = (flag for flag in flags(read_run(folder)) if "planned" in flag.title)
    assert (flag.level, "1 of 15" in flag.title) == ("warning", True)
    assert "an update" in flag.detail  # 450 s
    assert "the start" not in flag.detail  # 90 s
    assert "1 of 15" in conclusion(folder)
    (folder / "origin.json").write_text(json.dumps({"planned": {**planned, "updates": 2}}))
    assert "planned" not in conclusion(folder)


def test_problems_that_were_trained_on_and_held_out_are_said(tmp_path: Path) -> None:
    pair = Pair("1 + 1 =", "2")
    left_out = [left_out_row("data.source", reason, pair) for reason in (OVERLAP_KEPT, OVERLAP_KEPT, OVERLAP_DROPPED)]
    folder = write_run(tmp_path / "one")
    write_listing(folder / "problems-left-out.jsonl", left_out)
    assert titles(folder)["The held-out set overlaps 2 training problems"] == "warning"


def test_collapse_and_resumes_are_said(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "one")
    event = {"update": 3, "event": "collapse", "detail": "canary/entropy went from 0.1 to 0.01"}
    (folder / "events.jsonl").write_text(json.dumps(event) + "\n")
    (folder / "incarnation.json").write_text("2")
    found = titles(folder)
    assert found["1 sign of collapse"] == "warning"
    assert found["Resumed 2 times"] == "note"


def test_samples_far_from_the_policy_are_said_with_the_remedy(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "one")
    event = {"update": 3, "event": "mismatch", "detail": "mismatch/effective_share is below 0.5: 0.31"}
    (folder / "events.jsonl").write_text(json.dumps(event) + "\n")
    (flag,) = (flag for flag in flags(read_run(folder)) if flag.title.startswith("The samples were far"))
    assert flag.level == "warning"
    assert "update 3: mismatch/effective_share is below 0.5: 0.31" in flag.detail
    assert "lower learner.max_staleness or learner.learning_rate" in flag.detail
