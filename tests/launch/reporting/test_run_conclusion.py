import re
from dataclasses import replace
from pathlib import Path

import pytest

from microbudget_rl.actors.evaluation.statistics import paired_difference
from microbudget_rl.actors.results import Results, read_run
from microbudget_rl.actors.storage.documents import Event, EventKind, MetricsRow, RunSummary
from microbudget_rl.actors.storage.run_record import named
from microbudget_rl.launch.reporting.plots import learning_curve
from microbudget_rl.launch.reporting.run_conclusion import (
    Effect,
    basis,
    changes,
    conclude,
    effect,
    finding,
    reward_effect,
)
from microbudget_rl.launch.reporting.tables import benchmarks, held_out, pairs
from microbudget_rl.launch.reporting.wording import SPACE, compact, decimal, percent, points, span
from tests.run_folders import PROBLEMS, edited, evaluation, sample, write_rows, write_run, write_samples


def compared(run: Results) -> Effect:
    found = effect(run)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("before", "after", "finding"), [(2, 18, "rose"), (18, 2, "fell"), (9, 10, "unclear"), (0, 0, "unclear")]
)
def test_conclusion_follows_the_interval(tmp_path: Path, before: int, after: int, finding: str):
    run = read_run(write_run(tmp_path / "one", before=before, after=after))
    found = compared(run)
    assert found.finding == finding
    lead = {"rose": "It learned", "fell": "It got worse", "unclear": "No learning can be shown"}[finding]
    assert conclude(run, found).startswith(lead)
    assert all(level in conclude(run, found) for level in map(percent, (before / 24, after / 24)))
    unmoved = (MetricsRow.model_validate({**row.content, "adapter_check/decided": 0.0}) for row in run.rows)
    assert ("check saw no change" in conclude(replace(run, rows=tuple(unmoved)), found)) == (finding == "rose")
    assert "check saw no change" not in conclude(run, found)


def test_only_problems_of_both_evaluations_are_compared_and_nothing_is_claimed_without_samples(tmp_path: Path):
    folder = write_run(tmp_path / "one", before=2, after=18)
    write_rows(folder / "samples" / "eval-final.jsonl", (sample(number, True) for number in range(8)))
    with edited(folder / "summary.json") as summary:
        summary["eval"]["final"] |= {"pass@1": 1.0, "problems": 8}
    run = read_run(folder)
    found = compared(run)
    assert (found.problems, found.before.value, found.after.value, found.difference.value) == (8, 0.25, 1.0, 0.75)
    assert "8 problems of both" in held_out(run, found).note
    (folder / "samples" / "eval-base.jsonl").unlink()
    found = compared(run := read_run(folder))
    assert (found.difference.interval, found.finding) == (None, "unclear")
    assert "no interval" in conclude(run, found)


def test_a_run_without_final_evaluation_or_update_has_no_conclusion(tmp_path: Path):
    run = read_run(write_run(tmp_path / "one", after=None, status="halted"))
    assert re.match("No conclusion: the trained model was not evaluated; .*it was time", conclude(run, effect(run)))
    assert f"of the base model was 8.3{SPACE}% on 24{SPACE}held-out problems" in conclude(run, effect(run))
    assert "no problems were held out" in conclude(replace(run, config={**run.config, "eval.problems": 0}), None)
    no_time = Event.of(EventKind.CUT_OFF, "evaluation on hard", update=0, detail="no time: budget.minutes=9 holds it")
    assert "budget.minutes=9" in conclude(replace(run, events=[no_time]), effect(run))
    run = replace(read_run(write_run(tmp_path / "two")), rows=(), summary=RunSummary(status="budget_exhausted"))
    assert conclude(run, compared(read_run(run.folder))).startswith("No conclusion: no update was made")


@pytest.mark.parametrize(("after", "fell"), [(2, True), (17, False)])
def test_a_benchmark_that_falls_is_named_with_its_interval(tmp_path: Path, after: int, fell: bool):
    folder = write_run(tmp_path / "one")
    with edited(folder / "summary.json") as summary:
        summary["eval"]["benchmarks"] = {"general": {"base": evaluation(18), "final": evaluation(after)}, "cut": {}}
    for policy, solved in (("base", 18), ("final", after)):
        write_samples(folder, f"{policy}-general", solved)
    run = read_run(folder)
    said, found = conclude(run, compared(run)), changes(run)["general"].difference
    assert said.startswith("It learned")
    assert (f". Pass@1 on general fell from 75.0{SPACE}%" in said) == (span(found.interval) in said) == fell
    listed = replace(run, config={**run.config, "data.contamination": "report_only"})
    assert ("not trained" in benchmarks(run).note, "not trained" in benchmarks(listed).note) == (True, False)
    several = dict.fromkeys("abcdef", run.eval.benchmarks["general"])
    alike = replace(
        run,
        samples={named(p, name): run.samples[f"{p}-general"] for p in ("base", "final") for name in several},
        summary=run.summary.model_copy(update={"eval": run.eval.model_copy(update={"benchmarks": several})}),
    )
    together = paired_difference(run.solved("base", "general"), run.solved("final", "general"), 6)
    assert together
    assert {each.difference.interval for each in changes(alike).values()} == {together.interval} != {found.interval}
    levels = percent(0.75), percent(after / 24), points(found.value)
    assert benchmarks(run).body[0][2::2] == levels


def test_result_that_is_not_the_last_version_is_named_beside_it(tmp_path: Path):
    folder = write_run(tmp_path / "one", result={"update": 30, "why": "the best", "validation": 0.75})
    with edited(folder / "summary.json") as summary:
        summary["eval"]["last"] = evaluation(6)
    write_samples(folder, "last", 6)
    run = read_run(folder)
    said, table = conclude(run, compared(run)), held_out(run, compared(run))
    assert "update 30 of 40" in said
    assert table.head[2:] == ("result: update 30", "change", "last: update 40")
    figures = {row[0]: row[4] for row in table.body}
    assert (figures["pass@1"], figures["truncated"]) == (f"25.0{SPACE}%", "0 of 24")
    plot = learning_curve(run, compared(run))
    assert plot
    assert "result: update 30" in plot.svg


@pytest.mark.parametrize(("warm", "lead"), [(4, "It learned"), (18, "No learning"), (24, "It got worse")])
def test_what_the_warm_start_did_is_no_reinforcement(tmp_path: Path, warm: int, lead: str):
    """The first sentence is about the change since the warm start, the others about imitation and the whole."""
    run = read_run(write_run(tmp_path / "one", before=0, warm=warm, after=18))
    said, table = conclude(run, found := compared(run)), held_out(run, found)
    assert said.startswith(lead)
    assert f"0.0 % to {decimal(warm / 24 * 100)} %, {points(warm / 24)} points" in said.replace(SPACE, " ")
    assert "0.0 % to 75.0 %, +75.0 points" in said.replace(SPACE, " ")
    assert finding(run) == {4: "rose", 18: "unclear", 24: "fell"}[warm]
    assert table.head == ("", "base", "warm start", "trained", "change", "since the warm start")
    assert table.body[0][1:] == (*map(percent, (0.0, warm / 24, 0.75)), "+75.0", points(0.75 - warm / 24))
    rewarded = replace(run, config=run.config | {"reward.accuracy": 0.0})
    assert finding(rewarded) == finding(run)
    assert f"{warm / 24:.2f} to 0.75" in conclude(rewarded, found)
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
def test_a_reward_that_weighs_no_answers_is_the_conclusion(tmp_path: Path, gain: float, lead: str):
    """In its own unit, whatever pass@1 did; where evaluations lack a part of the reward, it is the training's."""
    folder = write_run(tmp_path / "one", before=0, after=0)
    rewards = {"base": [number % 3 - 1.0 for number in range(PROBLEMS)]}
    rewards["final"] = [reward + gain * (1 + number % 2) for number, reward in enumerate(rewards["base"])]
    for policy, values in rewards.items():
        rows = (sample(number, False) | {"reward": value} for number, value in enumerate(values))
        write_rows(folder / "samples" / f"eval-{policy}.jsonl", rows)
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
    partial = [row.model_copy(update={"partial": True}) for row in run.samples["final"]]
    lacking = replace(run, samples={**run.samples, "final": partial})
    assert conclude(lacking, compared(lacking)).startswith("No conclusion")
    assert (finding(lacking), basis(lacking, compared(lacking))) == ("none", "")
    curve = learning_curve(run, compared(run))
    assert curve
    assert "held-out reward" in curve.svg


def test_settings_are_short_and_keep_their_value():
    written = {2e-4: "2e-4", 1.25e-5: "1.25e-5", 0.999: "0.999", 0.9999: "0.9999", 1440.0: "1440", 64: "64"}
    assert {value: compact(value) for value in written} == written


def test_samples_of_every_outcome_are_shown_changed_ones_first(tmp_path: Path):
    found = pairs(read_run(write_run(tmp_path / "one", before=2, after=18)))
    assert [pair.outcome for pair in found] == 2 * ["wrong before, right after", "wrong both times", "right both times"]
    assert all(pair.before.problem == pair.after.problem for pair in found)
