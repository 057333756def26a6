import json
from pathlib import Path

import pytest

from microbudget_rl.actors.results import read_run
from microbudget_rl.actors.storage.documents import Event, EventKind
from microbudget_rl.actors.storage.files import append_row
from microbudget_rl.launch.reporting import conclusion
from microbudget_rl.launch.reporting.health import Flag, flags, frozen
from microbudget_rl.rewards.problems.loading import OVERLAP_FILTERED, OVERLAP_KEPT, write_listing
from microbudget_rl.rewards.problems.rows import RawProblem, filtered_row
from tests.run_folders import metrics, write_rows, write_run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_run(tmp_path / "one", updates=10)


def known(folder: Path) -> dict[str, Flag]:
    """Flags by title."""
    return {flag.title.replace("\N{NO-BREAK SPACE}", " "): flag for flag in flags(read_run(folder))}


def test_healthy_run_has_nothing_but_good_flags(folder: Path):
    assert {flag.level for flag in known(folder).values()} == {"good"}


def test_what_went_wrong_is_said(tmp_path: Path):
    counts = {"deaths/rollout": 2, "warnings/disk": 1}
    folder = write_run(tmp_path / "one", status="failed", spent_s=700.0, ledger={"counts": counts})
    unsure = {"adapter_check/decided": 0.0, "verify/timeout": 1, "response/truncated": 0.4}
    late = {"groups/zero_variance": 0.9, "staleness/max": 2.0, "learner/rate_kept": 0.25}
    write_rows(folder / "metrics.jsonl", (metrics(update, 10) | unsure | late for update in range(1, 11)))
    happened = {
        EventKind.REWARD_FAILED: "'mine:tone' returned None",
        EventKind.COLLAPSE: "adapter_check/entropy fell",
        EventKind.CHECKPOINT_REFUSED: "it is damaged",
        EventKind.MISMATCH: "ess 0.31",
        EventKind.CHECK_FAILED: "no adapter",
    }
    for kind, detail in happened.items():
        append_row(folder / "events.jsonl", Event.of(kind, update=3, detail=detail))
    found = known(folder)
    assert {
        found[title].level for title in ("The run failed", "The staleness was at most 2 versions", "Failed its check")
    } == {"bad"}
    limited = "learner.max_kl lowered the learning rate"
    notes = "10 verdicts timed out", "90 % of the groups in the last updates had zero variance", limited
    assert {found[title].level for title in notes} == {"note"}
    spent = "The budget was overrun", "2 failures survived", "disk: 1 warning", "1 checkpoint refused"
    learned = "The adapter check stayed undecided", "1 sample without a reward", "1 sign of collapse"
    samples = "40.0 % of the responses were truncated", "The samples were far from the policy that learned from them"
    assert {found[title].level for title in (*spent, *learned, *samples)} == {"warning"}
    for title, part in {learned[1]: "mine:tone", learned[2]: "update 3: the entropy", samples[1]: "ess 0.31"}.items():
        assert part in found[title].detail


@pytest.mark.parametrize(("entropy", "unanimous", "share"), [(0.1, 0.8, 0.48), (0.9, 0.8, 0.0), (0.1, 0.1, 0.0)])
def test_a_run_is_frozen_where_it_is_certain_and_wrong_in_unison(
    folder: Path, entropy: float, unanimous: float, share: float
):
    rows = [metrics(update, 10) | {"policy/entropy": 1.0} for update in range(1, 10)]
    last = {"policy/entropy": entropy, "errors/unanimous": unanimous, "reward/accuracy": 0.4}
    write_rows(folder / "metrics.jsonl", [*rows, metrics(10, 10) | last])
    assert frozen(read_run(folder)) == pytest.approx(share)


def test_a_run_far_behind_its_plan_is_not_well(tmp_path: Path):
    folder = write_run(tmp_path / "one", updates=1, status="budget_exhausted")
    planned = {"updates": 15, "update_s": 30.0, "start_s": 80.0}
    (folder / "origin.json").write_text(json.dumps({"planned": planned}))
    said = known(folder)["It made 1 of 15 planned updates"]
    assert said.level == "warning"
    assert "an update" in said.detail  # 450 s
    assert "the start" not in said.detail  # 90 s
    assert "1 of 15" in conclusion(folder)
    (folder / "origin.json").write_text(json.dumps({"planned": {**planned, "updates": 2}}))
    assert "planned" not in conclusion(folder)


def test_problems_that_were_trained_on_and_held_out_are_said(folder: Path):
    pair = RawProblem("1 + 1 =", "2")
    filtered = [filtered_row("data.source", reason, pair) for reason in (OVERLAP_KEPT, OVERLAP_KEPT, OVERLAP_FILTERED)]
    write_listing(folder / "problems-left-out.jsonl", filtered)
    assert known(folder)["The held-out set overlaps 2 training problems"].level == "warning"
