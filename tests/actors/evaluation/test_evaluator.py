"""Rounds, deadlines, what survives an end at any moment, and where the time went, under virtual time."""

import asyncio
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from microbudget_rl.actors.attempt import Attempts
from microbudget_rl.actors.evaluation.evaluator import PolicySamples, complete_samples, part_of
from microbudget_rl.actors.messages import AdapterRef, Group
from microbudget_rl.actors.storage.files import drop_half_line
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.schema import Config
from tests.fakes import FakeEngine, FakeVerifier, make_problem
from tests.virtual_time import VirtualClock, run_virtually

PROBLEMS = tuple(make_problem(number) for number in range(5))
ADAPTER = AdapterRef(0, 0, "nowhere")


def evaluate(*policies: PolicySamples, seconds: float | None = None, at_once: int = 3) -> set[tuple[Any, ...]]:
    """Sample for so many seconds, of which each sample takes one. Return problem, adapter and seed of the requests."""
    engine = FakeEngine()

    async def scenario() -> None:
        await engine.load(ADAPTER)
        attempts = Attempts(Config(), engine, FakeVerifier(0.0), VirtualClock())
        await complete_samples(attempts, *policies, at_once=at_once, seconds=seconds)

    run_virtually(scenario())
    found = {(each.problem.id, each.adapter, each.sampling.seed) for each in engine.requests}
    assert len(found) == len(engine.requests)
    return found


def open_files(folder: Path, n: int) -> list[PolicySamples]:
    """Open them as a process does that goes on after another."""
    policies = {"base": None, "adapter": ADAPTER}
    for name in policies:
        drop_half_line(folder / f"{name}.jsonl")
    return [PolicySamples(PROBLEMS, n, adapter, folder / f"{name}.jsonl") for name, adapter in policies.items()]


@pytest.mark.parametrize(("seconds", "round_s", "at_once"), [(9, 0, 16), (9, 3, 16), (8, 3, 4), (2, 8, 2), (1, 40, 1)])
def test_where_time_is_short_a_part_of_the_problems_is_sampled_at_once(seconds: float, round_s: float, at_once: int):
    assert part_of(16, seconds, round_s) == at_once


def test_without_a_complete_round_whole_parts_of_the_first_problems_count():
    problems, engine = tuple(make_problem(number) for number in range(8)), FakeEngine()
    engine.seconds_of = lambda index: 10.0 if index % 8 == 7 else 1.0  # type: ignore[method-assign]
    samples = PolicySamples(problems, 16, None)
    attempts = Attempts(Config(), engine, FakeVerifier(0.0), VirtualClock())
    run_virtually(complete_samples(attempts, samples, at_once=8, seconds=9.9))
    assert [row.problem for (row,) in samples.counted(8)] == [f"p{number}" for number in range(6)]
    assert len(samples.counted(1)) == 7


def test_failure_of_one_sample_cancels_the_others():
    engine = FakeEngine(seconds=10.0)

    class Failing(FakeVerifier):
        async def score(self, group: Group) -> Group:
            raise OSError("gone")

    async def scenario() -> int:
        attempts = Attempts(Config(), engine, Failing(), VirtualClock())
        with pytest.raises(ExceptionGroup):
            await complete_samples(attempts, PolicySamples(PROBLEMS, 9, None), at_once=2)
        await asyncio.sleep(60.0)
        return engine.tokens

    assert run_virtually(scenario()) <= 2


def test_samples_are_flushed_in_a_thread_and_many_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file, _ = open_files(tmp_path, 8)
    threads: list[threading.Thread] = []
    sampled = threading.Event()

    def fsync(_: int) -> None:
        threads.append(threading.current_thread())
        sampled.wait()

    def note() -> None:
        if file.sampled == 8 * len(PROBLEMS):
            sampled.set()

    monkeypatch.setattr(os, "fsync", fsync)
    attempts = Attempts(Config(), FakeEngine(0.001), FakeVerifier(0.0), VirtualClock())
    asyncio.run(complete_samples(attempts, file, at_once=3, on_sample=note))
    assert len(threads) == 2
    assert threading.main_thread() not in threads
    assert open_files(tmp_path, 8)[0].rounds == 8


@pytest.mark.parametrize("seconds", [1.5, 9.5])
def test_evaluation_cut_off_goes_on_in_rounds_without_a_sample_twice(tmp_path: Path, seconds: float):
    memory = [PolicySamples(PROBLEMS, 3, adapter) for adapter in (None, ADAPTER)]
    whole = evaluate(*memory)
    base, trained = ({(problem, seed) for problem, of, seed in whole if of == adapter} for adapter in (None, ADAPTER))
    assert base == trained
    assert len({seed for _, seed in base}) == 15
    cut = open_files(tmp_path, 3)
    evaluate(*cut, seconds=seconds)
    kept = sum(file.sampled for file in cut)
    assert kept == 3 * int(seconds)
    assert min(file.rounds for file in cut) == kept // 10
    second = evaluate(*open_files(tmp_path, 3))
    assert len(second) == 30 - kept
    assert second <= whole
    assert all(file.rounds == 3 for file in open_files(tmp_path, 3))


def test_half_written_line_is_sampled_again_and_more_samples_may_be_requested(tmp_path: Path):
    evaluate(*open_files(tmp_path, 1))
    file = tmp_path / "base.jsonl"
    file.write_text(file.read_text()[:-20])
    again = open_files(tmp_path, 1)
    assert [file.sampled for file in again] == [4, 5]
    assert len(evaluate(*again)) == 1
    assert len(evaluate(*open_files(tmp_path, 2))) == 10
    assert all(file.rounds == 1 for file in open_files(tmp_path, 1))


def test_changed_problem_and_damaged_line_are_refused(tmp_path: Path):
    evaluate(*open_files(tmp_path, 1))
    file = tmp_path / "base.jsonl"
    text = file.read_text()
    for damaged, said in ((text.replace('"gold": "1"', '"gold": "2"'), "problem p0"), ("{}\n", "line 1: problem")):
        file.write_text(damaged)
        with pytest.raises(BadInput, match=said):
            open_files(tmp_path, 1)


def test_seconds_of_all_samples_are_those_of_the_evaluation():
    policies = [PolicySamples(PROBLEMS, 3, adapter) for adapter in (None, ADAPTER)]
    evaluate(*policies, at_once=4)
    found = [policy.scores(policy.of_rounds(3)) for policy in policies]
    assert (found[1].problems, found[1].n, found[1].pass_at) == (5, 3, {1: 1.0, 3: 1.0})
    assert sum(each.seconds for each in found) == pytest.approx(8.0, abs=0.01)
    assert found[0].round_seconds == pytest.approx(found[0].seconds / 3)
    assert found[0].tokens == 15
