"""Rounds, what survives an end at any moment, and where the time went, under virtual time."""

import asyncio
import os
import threading
from pathlib import Path

import pytest

from actors.evaluation.evaluator import Evaluator
from actors.evaluation.protocol import protocol_of
from actors.evaluation.samples import EvaluationFolder, SampleFile
from actors.messages import AdapterRef, Group, Problem, Sampling
from conf.errors import BadInput
from conf.schema import Config
from tests.fakes import FakeEngine, FakeVerifier, make_problem
from tests.virtual_time import VirtualClock, run_virtually

PROBLEMS = tuple(make_problem(number) for number in range(5))
ADAPTER = AdapterRef(0, 0, "nowhere")


class RecordingEngine(FakeEngine):
    """seen: problem, adapter and seed of every request."""

    def __init__(self, seconds: float = 1.0) -> None:
        super().__init__(seconds)
        self.seen: list[tuple[str, str | None, int]] = []

    async def generate(self, index: int, problem: Problem, adapter: AdapterRef | None, sampling: Sampling) -> Group:
        self.seen.append((problem.id, adapter and adapter.name, sampling.seed))
        return await super().generate(index, problem, adapter, sampling)


def open_sample_files(folder: Path, n: int) -> list[SampleFile]:
    """Open them as a process does that goes on after another."""
    evaluation = EvaluationFolder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    evaluation.begin(Config(), protocol_of(Config(), "nowhere", None))
    files = {"base": None, "adapter": ADAPTER}
    return [SampleFile(folder / "samples" / f"sums-{name}.jsonl", PROBLEMS, n, files[name]) for name in files]


def draw(sample_files: list[SampleFile], seconds: float = 1e6, at_once: int = 3) -> RecordingEngine:
    """Sample for so many seconds, of which each sample takes one."""
    engine = RecordingEngine()

    async def scenario() -> None:
        await engine.load(ADAPTER)
        try:
            async with asyncio.timeout(seconds):
                await Evaluator(Config(), engine, FakeVerifier(0.0), VirtualClock()).complete(sample_files, at_once)
        except TimeoutError:
            pass

    run_virtually(scenario())
    return engine


def test_samples_are_flushed_in_a_thread_and_many_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = open_sample_files(tmp_path, 8)[:1]
    threads: list[threading.Thread] = []
    sampled = threading.Event()

    def fsync(_: int) -> None:
        threads.append(threading.current_thread())
        sampled.wait()

    def note() -> None:
        if files[0].sampled == 8 * len(PROBLEMS):
            sampled.set()

    monkeypatch.setattr(os, "fsync", fsync)
    evaluator = Evaluator(Config(), FakeEngine(0.001), FakeVerifier(0.0), VirtualClock())
    asyncio.run(evaluator.complete(files, 3, note))
    assert len(threads) == 2
    assert threading.main_thread() not in threads
    assert open_sample_files(tmp_path, 8)[0].rounds == 8


@pytest.mark.parametrize("seconds", [1.5, 6.5, 9.5])
def test_evaluation_cut_off_goes_on_in_rounds_without_a_sample_twice(tmp_path: Path, seconds: float) -> None:
    whole = set(draw(open_sample_files(tmp_path / "whole", 3)).seen)
    by_policy = [
        {(problem, seed) for problem, name, seed in whole if bool(name) == adapted} for adapted in (False, True)
    ]
    assert by_policy[0] == by_policy[1]
    assert len({seed for _, seed in by_policy[0]}) == 15
    cut = open_sample_files(tmp_path / "cut", 3)
    draw(cut, seconds)
    kept = sum(sample_file.sampled for sample_file in cut)
    assert kept == 3 * int(seconds)
    assert min(sample_file.rounds for sample_file in cut) == kept // 10
    again = open_sample_files(tmp_path / "cut", 3)
    assert sum(sample_file.sampled for sample_file in again) == kept
    second = draw(again)
    assert len(second.seen) == 30 - kept
    assert set(second.seen) <= whole
    assert all(sample_file.rounds == 3 for sample_file in open_sample_files(tmp_path / "cut", 3))


def test_half_written_line_is_sampled_again_and_more_samples_may_be_requested(tmp_path: Path) -> None:
    draw(open_sample_files(tmp_path, 1))
    file = tmp_path / "samples" / "sums-base.jsonl"
    file.write_text(file.read_text()[:-20])
    again = open_sample_files(tmp_path, 1)
    assert [sample_file.sampled for sample_file in again] == [4, 5]
    assert len(draw(again).seen) == 1
    assert len(draw(open_sample_files(tmp_path, 2)).seen) == 10
    assert all(sample_file.rounds == 1 for sample_file in open_sample_files(tmp_path, 1))


def test_changed_problem_and_damaged_line_are_refused(tmp_path: Path) -> None:
    draw(open_sample_files(tmp_path, 1))
    file = tmp_path / "samples" / "sums-base.jsonl"
    text = file.read_text()
    file.write_text(text.replace('"gold": "1"', '"gold": "2"'))
    with pytest.raises(BadInput, match="problem p0"):
        open_sample_files(tmp_path, 1)
    file.write_text("{}\n" + text)
    with pytest.raises(BadInput, match="line 1: problem"):
        open_sample_files(tmp_path, 1)


def test_seconds_of_all_samples_are_those_of_the_evaluation(tmp_path: Path) -> None:
    sample_files = open_sample_files(tmp_path, 3)
    draw(sample_files, at_once=4)
    assert sum(sample_file.cost["seconds"] for sample_file in sample_files) == pytest.approx(8.0, abs=0.01)
    assert sample_files[0].cost["tokens"] == 15
