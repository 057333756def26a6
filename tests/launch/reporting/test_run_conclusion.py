import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from actors.evaluation.statistics import Mean, paired_difference
from actors.storage.documents import Event, EventKind, MetricsRow, RunSummary
from actors.storage.run_record import named
from launch.reporting.history import Run, read_run
from launch.reporting.plots import _validations, learning_curve
from launch.reporting.run_conclusion import Effect, basis, changes, conclude, effect, finding, reward_effect
from launch.reporting.tables import benchmarks, held_out
from launch.reporting.wording import SPACE, decimal, percent, points, span
from tests.run_folders import PROBLEMS, change_summary, evaluation, sample, write_run


def compared(run: Run) -> Effect:
    found = effect(run)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("before", "after", "finding", "figures"),
    [
        (2, 18, "rose", ("8.3", "75.0", "66.7")),
        (18, 2, "fell", ("66.7",)),
        (9, 10, "unclear", ()),
        (0, 0, "unclear", ()),
    ],
)
def test_conclusion_follows_the_interval(
    tmp_path: Path, before: int, after: int, finding: str, figures: tuple[str, ...]
) -> None:
    run = read_run(write_run(tmp_path / "one", before=before, after=after))
    found = compared(run)
    assert found.finding == finding
    lead = {"rose": "It learned", "fell": "It got worse", "unclear": "No learning can be shown"}[finding]
    assert conclude(run, found).startswith(lead)
    assert all(figure in conclude(run, found) for figure in figures)
    unmoved = (MetricsRow.model_validate({**row.content, "adapter_check/decided": 0.0}) for row in run.rows)
    assert ("check saw no change" in conclude(replace(run, rows=tuple(unmoved)), found)) == (finding == "rose")
    assert "check saw no change" not in conclude(run, found)
    assert found.difference.interval is not None
    assert found.difference.interval[0] <= found.difference.value <= found.difference.interval[1]


def test_only_problems_of_both_evaluations_are_compared(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "one", before=2, after=18)
    after = folder / "samples" / "eval-final.jsonl"
    after.write_text("".join(line + "\n" for line in after.read_text().splitlines()[:8]))
    change_summary(folder, "final", **{"pass@1": 1.0, "problems": 8})
    run = read_run(folder)
    found = compared(run)
    assert (found.problems, found.before.value, found.after.value, found.difference.value) == (8, 0.25, 1.0, 0.75)
    assert "8 problems of both" in held_out(run, found).note


def test_a_run_without_final_evaluation_or_update_has_no_conclusion(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "one", after=None, status="halted"))
    assert re.match("No conclusion: the trained model was not evaluated; .*it was time", conclude(run, effect(run)))
    assert f"of the base model was 8.3{SPACE}% on 24{SPACE}held-out problems" in conclude(run, effect(run))
    no_time = Event.of(EventKind.CUT_OFF, "evaluation on hard", update=0, detail="no time: budget.minutes=9 holds it")
    assert "budget.minutes=9" in conclude(replace(run, events=[no_time]), effect(run))
    run = replace(read_run(write_run(tmp_path / "two")), rows=(), summary=RunSummary(status="budget_exhausted"))
    assert conclude(run, compared(read_run(run.folder))).startswith("No conclusion: no update was made")


@pytest.mark.parametrize(("after", "fell"), [(2, True), (17, False)])
def test_a_benchmark_that_falls_is_named_with_its_interval(tmp_path: Path, after: int, fell: bool) -> None:
    folder = write_run(tmp_path / "one")
    summary = json.loads((folder / "summary.json").read_text())
    summary["eval"]["benchmarks"] = {"general": {"base": evaluation(18), "final": evaluation(after)}, "cut": {}}
    (folder / "summary.json").write_text(json.dumps(summary))
    for policy, solved in (("base", 18), ("final", after)):
        rows = "".join(json.dumps(sample(number, number < solved)) + "\n" for number in range(PROBLEMS))
        (folder / "samples" / f"eval-{policy}-general.jsonl").write_text(rows)
    run = read_run(folder)
    said, found = conclude(run, compared(run)), changes(run)["general"].difference
    assert said.startswith("It learned")
    assert (f". Pass@1 on general fell from 75.0{SPACE}%" in said) == (span(found.interval) in said) == fell
    alone = replace(run, config={**run.config, "eval.problems": 0})
    assert ("no problems were held out" in conclude(alone, None), "no problems" in conclude(run, None)) == (True, False)
    listed = replace(run, config={**run.config, "data.contamination": "report_only"})
    assert ("not trained" in benchmarks(run).note, "not trained" in benchmarks(listed).note) == (True, False)
    several = dict.fromkeys("abcdef", run.eval.benchmarks["general"])
    alike = replace(
        run,
        samples={named(p, name): run.samples[f"{p}-general"] for p in ("base", "final") for name in several},
        summary=run.summary.model_copy(update={"eval": run.eval.model_copy(update={"benchmarks": several})}),
    )
    known = {each.difference.interval for each in changes(alike).values()}
    together = paired_difference(run.solved("base", "general"), run.solved("final", "general"), 6)
    assert together
    assert known == {together.interval} != {found.interval}
    ((name, _, before, _, trained, _, *change),) = benchmarks(run).body
    assert (name, before, trained) == ("general", percent(0.75), percent(after / 24))
    assert change == [points(found.value), span(found.interval)]


def test_without_samples_nothing_is_claimed(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "one")
    (folder / "samples" / "eval-base.jsonl").unlink()
    found = compared(run := read_run(folder))
    assert (found.difference.interval, found.finding) == (None, "unclear")
    assert "no interval" in conclude(run, found)


def test_result_that_is_not_the_last_version_is_named_beside_it(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "one", result={"update": 30, "why": "the best", "validation": 0.75})
    samples, summary = folder / "samples", json.loads((folder / "summary.json").read_text())
    without = read_run(write_run(tmp_path / "two"))
    assert "update" not in conclude(without, effect(without))
    summary["eval"]["last"] = evaluation(6)
    (folder / "summary.json").write_text(json.dumps(summary))
    (samples / "eval-last.jsonl").write_text((samples / "eval-base.jsonl").read_text())
    run = read_run(folder)
    said, table = conclude(run, compared(run)), held_out(run, compared(run))
    assert "update 30 of 40" in said
    assert f"{PROBLEMS} problems" in said.replace("\N{NO-BREAK SPACE}", " ")
    assert table.head[2:] == ("result: update 30", "change", "last: update 40")
    figures = {row[0]: row[4] for row in table.body}
    assert (figures["pass@1"], figures["truncated"]) == (f"25.0{SPACE}%", "0 of 24")
    assert {len(row) for row in table.body} == {5}
    plot = learning_curve(run, compared(run))
    assert plot
    assert "result: update 30" in plot.svg
    assert len(_validations(run)) == 40


@pytest.mark.parametrize(("warm", "lead"), [(4, "It learned"), (18, "No learning"), (24, "It got worse")])
def test_what_the_warm_start_did_is_no_reinforcement(tmp_path: Path, warm: int, lead: str) -> None:
    """The first sentence is about the change since the warm start, the others about imitation and the whole."""
    run = read_run(write_run(tmp_path / "one", before=0, warm=warm, after=18))
    said, table = conclude(run, found := compared(run)), held_out(run, found)
    assert said.startswith(lead)
    assert f"0.0 % to {decimal(warm / 24 * 100)} %, {points(warm / 24)} points" in said.replace(SPACE, " ")
    assert "0.0 % to 75.0 %, +75.0 points" in said.replace(SPACE, " ")
    assert finding(run) == {4: "rose", 18: "unclear", 24: "fell"}[warm]
    assert table.head == ("", "base", "warm start", "trained", "change", "since the warm start")
    assert {len(row) for row in table.body} == {6}
    assert table.body[0][1:] == (*map(percent, (0.0, warm / 24, 0.75)), "+75.0", points(0.75 - warm / 24))
    with_adapter = replace(run, config=run.config | {"lora.start_from": "sft"})
    for source, name in (("self", "start adapter and warm start"), ("", "start adapter")):
        begun = replace(with_adapter, config=with_adapter.config | {"warm_start.source": source})
        assert held_out(begun, found).head[2::3] == (name, f"since the {name}")
        assert f"The {name}, not reinforcement" in conclude(begun, found)
        summary = begun.summary.model_copy(update={"eval": begun.eval.model_copy(update={"warm": None})})
        for accuracy in (1.0, 0.0):
            config = begun.config | {"reward.accuracy": accuracy}
            unknown = replace(begun, summary=summary, samples={**run.samples, "warm": []}, config=config)
            assert (finding(unknown), basis(unknown, found)) == ("none", "")
            assert re.match(f"No conclusion: .*{name}'s is not known", conclude(unknown, found))


@pytest.mark.parametrize(("gain", "lead"), [(0.5, "rose"), (-0.5, "fell"), (0.0, "unclear")])
def test_a_reward_that_weighs_no_answers_is_the_conclusion(tmp_path: Path, gain: float, lead: str) -> None:
    """In its own unit, whatever pass@1 did; where evaluations lack a part of the reward, it is the training's."""
    folder = write_run(tmp_path / "one", before=0, after=0)
    rewards = {"base": [number % 3 - 1.0 for number in range(PROBLEMS)]}
    rewards["final"] = [reward + gain * (1 + number % 2) for number, reward in enumerate(rewards["base"])]
    for policy, values in rewards.items():
        rows = [json.dumps(sample(number, False) | {"reward": value}) + "\n" for number, value in enumerate(values)]
        (folder / "samples" / f"eval-{policy}.jsonl").write_text("".join(rows))
    found = read_run(folder)
    run = replace(found, config=found.config | {"reward.accuracy": 0.0})
    said, of = conclude(run, compared(run)), reward_effect(run.samples["base"], run.samples["final"])
    assert of
    assert (of.finding, finding(run), finding(found)) == (lead, lead, "unclear")
    assert of.difference.value == pytest.approx(1.5 * gain)
    assert of.interval in said or lead == "unclear"
    assert "0.00 to" in said
    rows = {row[0]: row[3] for row in held_out(run, compared(run)).body}
    assert rows["reward"] == of.size()
    custom = replace(found, config=found.config | {"reward.custom": [{"function": "mine:short", "weight": 0.1}]})
    assert {row[0]: row[3] for row in held_out(custom, compared(custom)).body} == rows
    assert "reward" not in {row[0] for row in held_out(found, compared(found)).body}
    partial = [row.model_copy(update={"partial": True}) for row in run.samples["final"]]
    lacking = replace(run, samples={**run.samples, "final": partial})
    assert "went from 0.24 to 0.99" in conclude(lacking, compared(lacking))
    assert conclude(replace(lacking, rows=()), compared(lacking)).startswith("No conclusion")
    assert (finding(lacking), basis(lacking, compared(lacking))) == ("none", "")
    curve = learning_curve(run, compared(run))
    assert curve
    assert "held-out reward" in curve.svg


def test_validations_by_reward_are_drawn_as_they_are(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "one"))
    row = MetricsRow.model_validate({"update": 3, "validation/reward": -2.0, "validation/problems": 9.0})
    assert _validations(replace(run, rows=(row,))) == {3: Mean(-2.0)}


def test_a_reward_is_measured_from_the_warm_start(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "one", before=0, warm=20, after=20))
    run = replace(run, config=run.config | {"reward.accuracy": 0.0})
    assert finding(run) == "unclear"
    assert "0.83 to 0.83" in conclude(run, compared(run))
