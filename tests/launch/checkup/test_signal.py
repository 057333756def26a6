"""The figures of samples, the answer to them, and which samples are taken, under virtual time."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from microbudget_rl.actors.evaluation.statistics import FEWEST, Mean, share_interval
from microbudget_rl.actors.messages import Group
from microbudget_rl.actors.storage.documents import SampleRow
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.schema.call import SignalConfig
from microbudget_rl.conf.settings import build
from microbudget_rl.launch.checkup import signal
from microbudget_rl.launch.checkup.signal import RULES, Sampled, commonest, others, rule_for, sample, signal_of
from microbudget_rl.launch.plan.measurements import Signal
from microbudget_rl.launch.session import actors
from tests.fakes import FakeEngine, FakeVerifier, half_right, make_problem
from tests.launch.plan.plans import CPU, plan
from tests.virtual_time import VirtualClock, run_virtually

SIZE = 4
PLAN = plan("quickstart", CPU, f"rollout.samples_per_problem={SIZE}", "rollout.max_concurrent_samples=8")
PROBLEMS = [replace(make_problem(number), prompt_ids=(1, 2, number)) for number in range(40)]

SOUND = {"pass@1": 0.2, "pass@n": 0.5, "useful": 0.4, "unverified": 0.0, "paid": 1.0, "groups": 1000.0}
SOUND |= {"unparsable": 0.1, "asked": 1.0, "ended": 0.9}
NOTHING = {"useful": 0.0, "pass@1": 0.0, "unparsable": 1.0}
CASES = [
    ({}, "worth it"),
    ({"unverified": 0.1}, "the verifier fails"),
    ({"paid": 0.4}, "the reward contradicts the answers"),
    ({"pass@1": 0.9}, "too easy"),
    ({"pass@1": 0.8, "useful": 0.01}, "too easy"),
    ({**NOTHING, "asked": 0.0, "ended": 0.1}, "format"),
    ({**NOTHING, "ended": 0.1}, "truncated"),
    (NOTHING, "format"),
    ({"useful": 0.01}, "too hard"),
    ({"useful": 0.02}, "worth it"),
    ({"ended": 0.1, "unparsable": 0.8, "asked": 0.0}, "worth it"),  # it learns what to do about it
    ({"groups": 9.0}, "the budget is too short"),
    ({"groups": 10.0}, "worth it"),
]


def means(**change: float) -> dict[str, Mean]:
    return {name: Mean(value) for name, value in {**SOUND, **change}.items()}


@pytest.mark.parametrize(("change", "verdict"), CASES)
def test_a_rule_applies(change: dict[str, float], verdict: str):
    assert rule_for(means(**change)).verdict == verdict
    assert rule_for(means(**change)).worth == (verdict == "worth it")
    assert {rule.verdict for rule in RULES} == {verdict for _, verdict in CASES}


def test_a_verdict_is_certain_if_both_ends_of_all_intervals_agree():
    for name, interval, also in (
        ("useful", (0.06, 0.6), set[str]()),
        ("useful", (0.01, 0.6), {"too hard"}),
        ("pass@1", (0.1, 0.9), {"too easy"}),
        ("unparsable", (0.0, 1.0), set[str]()),
    ):
        assert others({**means(), name: Mean(0.3, interval)}) == also
    none_right = means() | {"useful": Mean(0.0, (0.0, 0.04)), "groups": Mean(0.0, (0.0, 40.0))}
    assert (rule_for(none_right).verdict, others(none_right)) == ("too hard", {"worth it"})


def row(status: str = "correct", reward: float | None = None, **known: Any) -> SampleRow:
    given = {"problem": "p", "prompt": "2 + 2 =", "gold": "1", "response": "", "tokens": 8, "finish_reason": "stop"}
    given |= {"status": status, "reward": float(status == "correct") if reward is None else reward}
    return SampleRow.model_validate(given | known)


def signal_from(samples: Sequence[Sequence[SampleRow]], **reward: Any) -> Signal:
    """reward: settings of the reward."""
    made = PLAN.again({f"reward.{key}": value for key, value in reward.items()})
    return signal_of(Sampled((PROBLEMS * 11)[: len(samples)], samples, 1.0), made)


def figures(*samples: Sequence[SampleRow], **reward: Any) -> dict[str, float]:
    return {name: mean.value for name, mean in signal_from(samples, **reward).figures.items()}


RIGHT, WRONG = row(), row("wrong")


@pytest.mark.parametrize("rule", RULES)
def test_a_sentence_has_all_its_figures(rule: signal.AnswerRule):
    said = rule.sentence(replace(signal_from([[RIGHT] * 4]), figures=means()))
    assert not {"{", "}"} & {*said.replace("\\boxed{}", "")}
    assert ("{groups}" in rule.reason) == ("about 1,000" in said)


def test_groups_and_workload_are_those_of_training():
    found = figures([RIGHT] * 4 + [WRONG] * 4, [RIGHT] + [WRONG] * 7)
    assert (found["pass@1"], found["pass@n"]) == (5 / 16, 1.0)
    assert found["varied"] == found["useful"] == 0.25  # of four groups, one
    assert "paid" not in found  # of two problems, one
    work = signal_from([[row(tokens=4), row(tokens=12), WRONG, row("wrong", prompt="2 + 3 =")]] * 2).workload
    assert (work.prompt, work.response, work.varied) == (3.0, 8.0, 1.0)
    assert (work.spread, work.fresh) == pytest.approx((8**0.5 / 8, 3.0 * 3 / 7))


def test_what_few_problems_pay_decides_nothing():
    contrary = [row("correct", 0.0), row("wrong", 1.0), WRONG, WRONG]
    few, enough = (signal_from([contrary] * mixed + [[WRONG] * 4] * (80 - mixed)) for mixed in (FEWEST - 1, FEWEST))
    assert ("paid" in few.figures, few.verdict) == (False, "worth it")
    assert (bool(enough.warning), others(enough.figures)) == (True, {"worth it"})


def test_the_default_number_of_problems_is_enough_for_too_hard():
    assert others(signal_from([[WRONG] * 4] * SignalConfig().problems).figures) == set()


def test_intervals_after_each_part_hold_together():
    rng, missed = np.random.default_rng(0), 0
    for values in (rng.random((400, 21 * signal.PARTS)) < 0.3).astype(float).tolist():
        looks = [share_interval(values[: 21 * part], signal.AT_A_LOOK) for part in range(1, signal.PARTS + 1)]
        missed += not all(low <= 0.3 <= high for low, high in looks)
    assert missed <= 0.05 * 400
    found = signal_from([[RIGHT] * 4, [WRONG] * 4])
    assert found.figures["pass@1"].interval == share_interval([1.0, 0.0], signal.AT_A_LOOK)


def test_what_counts_in_a_group():
    form = [row("wrong", 0.2), WRONG, WRONG, row("unparsable", finish_reason="length")]
    found = figures(form)
    assert (found["varied"], found["useful"], found["unparsable"], found["ended"]) == (1.0, 0.0, 0.25, 0.75)
    assert figures(form, accuracy=0.0)["useful"] == 1.0  # the answer earns nothing
    masked = [row("timeout", 0.5), WRONG, WRONG, row("wrong", 0.7, failure="f raised an error")]
    assert (figures(masked)["unverified"], figures(masked)["varied"]) == (0.5, 0.0)
    assert figures(masked, timeout="wrong")["varied"] == 1.0
    contrary = [row("correct", 0.0), row("wrong", 1.0), WRONG, WRONG]
    assert figures(contrary)["paid"] == 0.0
    assert "paid" not in found.keys() | figures(contrary, accuracy=0.0).keys()


def test_useful_groups_in_the_budget_by_the_measured_workload():
    samples = [[RIGHT] * 4 + [WRONG] * 3 + [RIGHT]] * 8
    for dynamic, each in ((False, 0.5), (True, 1.0)):
        made = PLAN.again({"learner.dynamic_sampling": dynamic})
        found = signal_of(Sampled(PROBLEMS[:8], samples, 2.0), made)
        expected = replace(made, calibration=replace(made.calibration, workload=found.workload)).estimate
        assert expected
        assert found.figures["groups"].value == expected.updates * made.config.learner.problems_per_update * each


@pytest.fixture(autouse=True)
def fakes(monkeypatch: pytest.MonkeyPatch) -> tuple[FakeEngine, list[Group]]:
    """Return the engine, and the groups that the verifier sees."""
    seen: list[Group] = []
    engine, verifier = FakeEngine(1.0), FakeVerifier(0.0)
    verifier.rewards_of = lambda group: seen.append(group) or half_right(group)  # type: ignore[func-returns-value]
    monkeypatch.setattr(signal, "WallClock", VirtualClock)
    monkeypatch.setattr(actors, "start_engines", lambda *_, **__: engine)
    monkeypatch.setattr(actors, "start_verifier", lambda *_, **__: verifier)
    return engine, seen


def take(most: int = 99, **asked: float) -> Sampled:
    """Sample until there are so many problems."""
    config = build(SignalConfig, asked)
    return run_virtually(sample(PLAN, "", PROBLEMS, config, lambda *_: None, lambda found: len(found.samples) < most))


def test_whole_groups_of_the_first_problems_are_sampled_and_verified_as_in_training(
    fakes: tuple[FakeEngine, list[Group]],
):
    """A user's function may compare the samples of a group."""
    engine, verified = fakes
    found, rollout = take(problems=20, samples=SIZE + 1), PLAN.config.rollout
    assert [len(rows) for rows in found.samples] == [2 * SIZE] * 20
    assert found.problems == PROBLEMS[:20]
    assert len({each.sampling.seed for each in engine.requests}) == len(engine.requests) == 2 * 20
    wanted = (SIZE, rollout.max_response_tokens, rollout.temperature, 1.0)
    requested = [each.sampling for each in engine.requests]
    assert {(each.samples, each.max_tokens, each.temperature, each.top_p) for each in requested} == {wanted}
    assert {len(group.samples) for group in verified} == {SIZE}
    assert [row.reward for row in found.samples[0]][:SIZE] == [one.total for one in half_right(verified[0])]


def test_it_ends_after_a_part_if_that_is_enough_or_the_time_is_over():
    """Eight responses at once take a second: the parts have two problems."""
    found = take(problems=20, samples=4, most=3)
    assert len(found.samples) == 4
    assert found.seconds == pytest.approx(2.0, abs=0.1)
    assert [len(rows) for rows in take(problems=40, samples=8, minutes=5.5 / 60).samples] == [8] * 4
    with pytest.raises(BadInput, match=r"signal\.minutes=0\.025: 2 of the first 8 .*signal\.minutes=1$"):
        take(problems=40, samples=16, minutes=1.5 / 60)


def test_the_commonest_failures_have_a_sample_on_one_line():
    failed = [row("wrong", failure="f raised ValueError: no")] * 2
    assert ["ValueError" in line for line in commonest([failed])] == [True]
    hostile = row("wrong", response="\x1b[2J\n" + 900 * "x", prompt=900 * "p" + "2 + 2 =")
    cut = row("unparsable", finish_reason="length")
    shown = [*commonest([[RIGHT, WRONG, hostile], [hostile, hostile, cut]])]
    assert [line.partition(":")[0] for line in shown] == ["66.7% wrong", "16.7% unparsable, truncated"]
    assert all(line.isprintable() and len(line) < 500 for line in shown)
