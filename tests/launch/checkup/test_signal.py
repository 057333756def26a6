"""The figures of samples, and which samples are taken, under virtual time."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest

from actors.evaluation.statistics import FEWEST, share_interval
from actors.messages import Group, Sampling, Status
from actors.storage.documents import EvaluatedSample
from conf.errors import BadInput
from conf.schema.call import SignalConfig
from conf.settings import build, changed
from launch.checkup import signal
from launch.checkup.rules import others, rule_for
from launch.checkup.signal import (
    AT_A_LOOK,
    PARTS,
    Sampled,
    commonest,
    figures_in,
    lines,
    longer,
    sample,
    signal_of,
    way_to_fail,
)
from launch.session import actors
from tests.fakes import FakeEngine, FakeVerifier, half_right, make_problem
from tests.launch.plan.plans import CPU, plan
from tests.virtual_time import VirtualClock, run_virtually

SIZE = 4
PLAN = plan("quickstart", CPU, f"rollout.samples_per_problem={SIZE}", "rollout.max_concurrent_samples=8")
PROBLEMS = [replace(make_problem(number), prompt_ids=(1, 2, number)) for number in range(40)]


def row(status: str = "correct", reward: float | None = None, **known: Any) -> EvaluatedSample:
    given = {"problem": "p", "prompt": "", "gold": "1", "response": "", "tokens": 8, "finish_reason": "stop"}
    earned = float(status == "correct") if reward is None else reward
    given |= {"status": status, "reward": earned, "sample": 0, "format": 0.0, "seconds": 0.0}
    return EvaluatedSample.model_validate(given | known)


def figures(*samples: Sequence[EvaluatedSample], **settings: Any) -> dict[str, float]:
    config = changed(PLAN.config, {f"reward.{key}": value for key, value in settings.items()})
    found = signal_of(Sampled(PROBLEMS[: len(samples)], samples, 1.0), config)
    return {name: mean.value for name, mean in found.figures.items()}


RIGHT, WRONG = row(), row("wrong")


def test_groups_are_those_of_training() -> None:
    found = figures([RIGHT] * 4 + [WRONG] * 4, [RIGHT] + [WRONG] * 7)
    assert (found["pass@1"], found["pass@n"]) == (5 / 16, 1.0)
    assert found["varied"] == found["useful"] == 0.25  # of four groups, one
    assert "paid" not in found  # of two problems, one


@pytest.mark.parametrize("mixed", [FEWEST - 1, FEWEST])
def test_what_few_problems_pay_decides_nothing(mixed: int) -> None:
    contrary = [row("correct", 0.0), row("wrong", 1.0), WRONG, WRONG]
    samples = [contrary] * mixed + [[WRONG] * 4] * (80 - mixed)
    found = signal_of(Sampled(PROBLEMS * 2, samples, 1.0), PLAN.config).figures
    assert ("paid" in found, rule_for(found).worth) == (mixed == FEWEST, mixed < FEWEST)
    assert mixed < FEWEST or others(found) == {"worth it"}


def test_intervals_after_each_part_hold_together() -> None:
    rng, missed = np.random.default_rng(0), 0
    for values in (rng.random((400, 15 * PARTS)) < 0.3).astype(float).tolist():
        looks = [share_interval(values[: 15 * part], AT_A_LOOK) for part in range(1, PARTS + 1)]
        missed += not all(low <= 0.3 <= high for low, high in looks)
    assert missed <= 0.05 * 400
    found = signal_of(Sampled(PROBLEMS[:2], [[RIGHT] * 4, [WRONG] * 4], 1.0), PLAN.config)
    assert found.figures["pass@1"].interval == share_interval([1.0, 0.0], AT_A_LOOK)


def test_a_group_that_only_differs_in_format_is_not_useful() -> None:
    rows = [row("wrong", 0.2, format=1.0), WRONG, WRONG, WRONG]
    found = figures(rows)
    assert (found["varied"], found["useful"], found["format"]) == (1.0, 0.0, 0.25)
    assert figures(rows, accuracy=0.0)["useful"] == 1.0  # the answer earns nothing
    assert "paid" not in found


def test_masked_samples_make_no_difference() -> None:
    rows = [row("timeout", 0.5), WRONG, WRONG, row("wrong", 0.7, failure="f raised an error")]
    found = figures(rows)
    assert (found["unverified"], found["varied"]) == (0.5, 0.0)
    assert figures(rows, timeout="wrong")["varied"] == 1.0


def test_wrong_responses_that_earn_more_are_found_if_the_reward_weighs_accuracy() -> None:
    rows = [row("correct", 0.0), row("wrong", 1.0), WRONG, WRONG]
    assert figures(rows)["paid"] == 0.0
    assert "paid" not in figures(rows, accuracy=0.0)


def test_unboxed_counts_only_responses_that_end() -> None:
    rows = [row("unparsable", finish_reason="length")] * 3 + [row("unparsable"), WRONG, WRONG, WRONG, WRONG]
    found = figures(rows)
    assert (found["ended"], found["unboxed"], found["unparsable"]) == (5 / 8, 0.2, 0.5)
    assert "unboxed" not in figures([row("unparsable", finish_reason="length")] * 4)


def test_the_workload_is_that_of_the_samples() -> None:
    found = signal_of(Sampled(PROBLEMS[:2], [[row(tokens=4), row(tokens=12)]] * 2, 1.0), PLAN.config).workload
    assert (found.prompt, found.fresh, found.response, found.spread, found.varied) == (3.0, 1.0, 8.0, 0.5, 0.05)


def test_useful_groups_in_the_budget_and_the_cost_of_one() -> None:
    found = signal_of(Sampled(PROBLEMS[:8], [[RIGHT] * 4 + [WRONG] * 3 + [RIGHT]] * 8, 2.0), PLAN.config)
    for dynamic, each in ((False, 0.5), (True, 1.0)):
        made = PLAN.again({"budget.price_per_hour": 3600.0, "learner.dynamic_sampling": dynamic})
        assert made.estimate
        known = figures_in(made, found)
        assert known["groups"].value == made.estimate.updates * made.config.learner.problems_per_update * each
        assert f"costs {made.estimate.update_s / 16 / each:.2g}" in lines(made, found, known, 2.0)[-1]


@pytest.mark.parametrize(("tokens", "context", "limit"), [(24, 8192, 48), (500, 8192, 1000), (500, 1000, 840)])
def test_longer_responses_fit_the_context_by_one_setting(tokens: int, context: int, limit: int) -> None:
    config = changed(PLAN.config, {"rollout.max_response_tokens": tokens})
    made = replace(PLAN, config=config, shape=replace(PLAN.shape, max_position_embeddings=context))
    assert longer(made) == f"rollout.max_response_tokens={limit}"
    full = replace(made, shape=replace(PLAN.shape, max_position_embeddings=160 + tokens))
    assert "longer context" in longer(full)


class Engine(FakeEngine):
    """Takes a second per request. seen: the settings of each."""

    seen: ClassVar[list[Sampling]] = []

    async def generate(self, index: int, problem: Any, adapter: Any, sampling: Sampling) -> Group:
        self.seen.append(sampling)
        return await super().generate(index, problem, adapter, sampling)


@pytest.fixture(autouse=True)
def fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "WallClock", VirtualClock)
    monkeypatch.setattr(actors, "start_engines", lambda *_, **__: Engine(1.0))
    monkeypatch.setattr(actors, "start_verifier", lambda *_, **__: FakeVerifier(0.0))


def take(most: int = 99, **asked: float) -> Sampled:
    """Sample until there are so many problems."""
    config = build(SignalConfig, asked)
    return run_virtually(sample(PLAN, "", PROBLEMS, config, lambda *_: None, lambda found: len(found.samples) < most))


def test_whole_groups_of_the_first_problems_are_sampled_as_in_training() -> None:
    found, rollout, first = take(problems=20, samples=6), PLAN.config.rollout, Engine.seen[-1]
    assert [len(rows) for rows in found.samples] == [8] * 20
    assert found.problems == PROBLEMS[:20]
    assert (first.temperature, first.top_p, first.max_tokens) == (rollout.temperature, 1.0, rollout.max_response_tokens)


def test_a_users_function_sees_whole_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Group] = []
    verifier = FakeVerifier(0.0)
    verifier.rewards_of = lambda group: asked.append(group) or half_right(group)  # type: ignore[func-returns-value]
    monkeypatch.setattr(actors, "start_verifier", lambda *_, **__: verifier)
    config = changed(PLAN.config, {"reward.custom": [{"function": "mine:f"}]})
    request = build(SignalConfig, {"problems": 20, "samples": 6})
    found = run_virtually(sample(replace(PLAN, config=config), "", PROBLEMS, request, print, lambda _: False))
    size, again = PLAN.config.rollout.samples_per_problem, [group for group in asked if len(group.samples) > 1]
    assert {len(group.samples) for group in again} == {size}
    assert [row.reward for row in found.samples[0]][:size] == [one.total for one in half_right(again[0])]


def test_it_ends_after_a_part_if_that_is_enough() -> None:
    found = take(problems=20, samples=4, most=3)
    assert len(found.samples) == 4
    assert found.seconds == pytest.approx(2.0, abs=0.1)


def test_at_the_end_whole_parts_count_or_the_whole_groups_of_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    """Eight responses at once take a second: the parts have two problems, or four."""
    for problems, samples, seconds, sizes in ((20, 8, 5.5, [8] * 4), (40, 12, 3.5, [4] * 4)):
        found = take(problems=problems, samples=samples, minutes=seconds / 60)
        assert [len(rows) for rows in found.samples] == sizes
    with pytest.raises(
        BadInput, match=r"signal\.minutes=0\.025: 8 of 16 .*, 4 of the first 4 right.*signal\.minutes=1$"
    ):
        take(problems=40, samples=16, minutes=1.5 / 60)
    assert "7 of 64" in capsys.readouterr().out


def test_the_commonest_failures_have_a_sample_on_one_line() -> None:
    failed = [row("wrong", failure=f"f raised ValueError: no, on problem {name}") for name in "ab"]
    assert len([*commonest([failed])]) == 1
    hostile = row("wrong", response="\x1b[2J\n" + 900 * "x", prompt=900 * "p" + "2 + 2 =")
    shown = [*commonest([[RIGHT, WRONG, hostile], [hostile, hostile, row("timeout")]])]
    assert [line.partition(":")[0] for line in shown] == ["66.7% a wrong answer", "16.7% verifier"]
    assert all(line.isprintable() and len(line) < 500 for line in shown)


@pytest.mark.parametrize(
    ("failed", "words"),
    [
        (row("unparsable", finish_reason="length"), "cut off"),
        (row("unparsable"), "without an answer in a box"),
        (row("unparsable", extracted="x"), "cannot be read"),
        (row("crash"), Status.CRASH),
        (row("correct", failure="f raised ValueError: no"), "ValueError"),
        (row("correct"), ""),
    ],
)
def test_ways_to_fail(failed: EvaluatedSample, words: str) -> None:
    assert words in way_to_fail(failed)
    assert bool(way_to_fail(failed)) == bool(words)
