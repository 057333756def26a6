import json
from pathlib import Path
from typing import Any

import pytest

from actors.storage.documents import Event, EventKind
from actors.storage.files import append_row
from launch.reporting import conclusion
from launch.reporting.health import Flag, flags
from launch.reporting.history import read_run
from rewards.problems.loading import OVERLAP_FILTERED, OVERLAP_KEPT, write_listing
from rewards.problems.rows import RawProblem, filtered_row
from tests.run_folders import metrics, write_run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_run(tmp_path / "one", updates=10)


def titles(folder: Path) -> dict[str, str]:
    """Level by title."""
    return {flag.title.replace("\N{NO-BREAK SPACE}", " "): flag.level for flag in flags(read_run(folder))}


def flag(folder: Path, words: str) -> Flag:
    (found,) = (flag for flag in flags(read_run(folder)) if words in flag.title)
    return found


def test_healthy_run_has_nothing_but_good_flags(folder: Path) -> None:
    assert set(titles(folder).values()) == {"good"}


@pytest.mark.parametrize(
    ("summary", "title", "level"),
    [
        ({"status": "failed"}, "The run failed", "bad"),
        ({"spent_s": 700.0}, "The budget was overrun", "warning"),
        ({"ledger": {"counts": {"deaths/rollout": 2}}}, "2 failures survived", "warning"),
        ({"ledger": {"counts": {"warnings/disk": 1}}}, "disk: 1 warning", "warning"),
    ],
)
def test_what_went_wrong_is_said(tmp_path: Path, summary: dict[str, Any], title: str, level: str) -> None:
    assert titles(write_run(tmp_path / "one", **summary))[title] == level


@pytest.mark.parametrize(
    ("change", "title", "level"),
    [
        ({"adapter_check/decided": 0.0}, "The adapter check stayed undecided", "warning"),
        ({"verify/timeout": 1}, "10 verdicts timed out", "note"),
        ({"response/truncated": 0.4}, "40.0 % of the responses were truncated", "warning"),
        ({"groups/zero_variance": 0.9}, "90 % of the groups in the last updates had no variance", "note"),
        ({"staleness/max": 2.0}, "The staleness was at most 2 versions", "bad"),
    ],
)
def test_what_the_updates_show_is_said(folder: Path, change: dict[str, float], title: str, level: str) -> None:
    rows = [metrics(update, 10) | change for update in range(1, 11)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert titles(folder)[title] == level


@pytest.mark.parametrize(
    ("kind", "detail", "title", "parts"),
    [
        (EventKind.REWARD_FAILED, "'mine:tone' returned None", "1 sample without a reward", ["mine:tone"]),
        (EventKind.COLLAPSE, "adapter_check/entropy fell", "1 sign of collapse", ["update 3: the entropy"]),
        (EventKind.CHECKPOINT_REFUSED, "it is damaged", "1 checkpoint refused", []),
        (EventKind.MISMATCH, "ess 0.31", "The samples were far from the policy that learned from them", ["ess 0.31"]),
    ],
)
def test_what_happened_is_said(folder: Path, kind: EventKind, detail: str, title: str, parts: list[str]) -> None:
    append_row(folder / "events.jsonl", Event.of(kind, update=3, detail=detail))
    assert titles(folder)[title] == "warning"
    said = flag(folder, title.replace("1 ", ""))
    assert all(part in said.detail for part in parts)


def test_a_run_far_behind_its_plan_is_not_well(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "one", updates=1, status="budget_exhausted")
    planned = {"updates": 15, "update_s": 30.0, "start_s": 80.0}
    (folder / "origin.json").write_text(json.dumps({"planned": planned}))
    said = flag(folder, "planned")
    assert (said.level, "1 of 15" in said.title) == ("warning", True)
    assert "an update" in said.detail  # 450 s
    assert "the start" not in said.detail  # 90 s
    assert "1 of 15" in conclusion(folder)
    (folder / "origin.json").write_text(json.dumps({"planned": {**planned, "updates": 2}}))
    assert "planned" not in conclusion(folder)


def test_problems_that_were_trained_on_and_held_out_are_said(folder: Path) -> None:
    pair = RawProblem("1 + 1 =", "2")
    filtered = [filtered_row("data.source", reason, pair) for reason in (OVERLAP_KEPT, OVERLAP_KEPT, OVERLAP_FILTERED)]
    write_listing(folder / "problems-left-out.jsonl", filtered)
    assert titles(folder)["The held-out set overlaps 2 training problems"] == "warning"
