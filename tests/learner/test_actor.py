"""Time limits of a learner's calls, and the warnings of its start."""

import asyncio
import logging
import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from microbudget_rl.actors.clock import WallClock
from microbudget_rl.actors.coordinator.actor import CoordinatorActor
from microbudget_rl.actors.errors import ActorDied, Halted
from microbudget_rl.actors.messages import Batch, Measured
from microbudget_rl.actors.rollout.actor import RolloutActor
from microbudget_rl.actors.rollout.shared_weights import WeightsActor
from microbudget_rl.actors.runtime.placement import Share
from microbudget_rl.actors.runtime.remote_actor import START_S
from microbudget_rl.actors.storage.documents import EventKind
from microbudget_rl.conf.schema import Config
from microbudget_rl.conf.settings import changed
from microbudget_rl.learner.actor import HANG_S, LearnerActor, RemoteLearner, gpu_faults
from microbudget_rl.rewards.actor import RewardActor
from tests.fakes import make_group


class Rank:
    """A process of the learner. allowed: the limit of each call, with its method. turns: what calls wait for."""

    def __init__(self, *waiting: str) -> None:
        self.allowed = list[tuple[str, float]]()
        self.turns = {method: asyncio.Event() for method in waiting}

    async def call(self, method: str, *arguments: Any, deadline_s: float) -> Any:
        self.allowed.append((method, deadline_s))
        if method in self.turns:
            await self.turns[method].wait()
        if method == "accumulate":
            return Measured(sum(group.learnable for group in arguments[0].groups))
        return []


def learner_of(rank: Rank) -> RemoteLearner:
    return RemoteLearner([rank], WallClock(), print)  # type: ignore[list-item]


async def test_empty_batches_do_not_tighten_the_limit(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ray.put", lambda batch: batch)
    rank = Rank()

    learner = learner_of(rank)
    for scores in ((0.0, 0.0), (0.0, 0.0), (1.0, 0.0), (0.0, 0.0)):
        await learner.accumulate(Batch(0, (make_group(0, scores=scores),)))
        await learner.step(1e-4)
    allowed = [seconds for method, seconds in rank.allowed if method in ("accumulate", "step")]
    assert allowed[:6] == [START_S] * 6
    assert allowed[6:] == pytest.approx([HANG_S] * 2, abs=1.0)


async def test_call_behind_one_that_was_given_up_has_the_time_of_both():
    """The process goes on with an update that the budget has cut off, and saves after it."""
    rank = Rank("restore")

    learner = learner_of(rank)
    await learner.publish()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(learner.restore(None, 0), 0.1)
    await learner.save("folder")
    await learner.save("folder")
    *_, (_, cut_off), (_, save), (_, again) = rank.allowed
    assert save == cut_off + START_S
    assert again == pytest.approx(HANG_S, abs=1.0)


async def test_answer_to_one_call_leaves_the_time_of_those_behind_it():
    rank = Rank("publish", "restore")

    learner = learner_of(rank)
    first, second = asyncio.create_task(learner.publish()), asyncio.create_task(learner.restore(None, 0))
    await asyncio.sleep(0.01)
    rank.turns["publish"].set()
    await first
    third = asyncio.create_task(learner.save("folder"))
    await asyncio.sleep(0.01)
    rank.turns["restore"].set()
    await asyncio.gather(second, third)
    assert rank.allowed[-3:] == [("publish", START_S), ("restore", 2 * START_S), ("save", 2 * START_S)]


async def test_warnings_of_the_start_are_recorded_once(
    tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(os, "environ", dict(os.environ))

    def make(*_: Any) -> None:
        logging.getLogger("microbudget_rl.learner.model.model_check").warning("plain kernels:\n%s", "no liger")
        logging.getLogger("transformers").warning("something else")

    monkeypatch.setattr("microbudget_rl.learner.learner.LoraLearner", make)

    class Rank:
        def __init__(self, rank: int) -> None:
            self._actor = LearnerActor(
                tiny_config, tiny_config.model.path, Share(threads=2), str(tmp_path / "adapters")
            )

        async def call(self, method: str, *_: Any, deadline_s: float) -> Any:
            return {"address": "here", "start_store": 1}.get(method) or self._actor.open()

    found: list[tuple[str, str, str]] = []

    learner = RemoteLearner([Rank(0), Rank(1)], WallClock(), lambda *event: found.append(event))  # type: ignore[list-item]
    await learner._opening
    assert found == [("learner", EventKind.FALLBACK, "plain kernels: no liger")]
    assert not logging.getLogger("microbudget_rl.learner").handlers


@pytest.mark.parametrize(
    ("given", "remedies"),
    [
        ({"tokens_per_microbatch": 1000, "offload": "none"}, ["tokens_per_microbatch=500", "offload=cpu"]),
        ({"tokens_per_microbatch": 80, "gradient_checkpointing": "on", "offload": "none"}, ["offload=cpu"]),
    ],
)
def test_a_full_gpu_halts_the_run_with_settings_that_need_less(
    given: dict[str, Any], remedies: list[str], tiny_config: Config
):
    rollout = {"rollout.max_prompt_tokens": 40, "rollout.max_response_tokens": 40}
    config = changed(tiny_config, rollout | {f"learner.{key}": value for key, value in given.items()})
    with pytest.raises(Halted) as halted, gpu_faults(config):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.50 GiB. GPU 0 has 23.65 GiB")
    value, _, remedy = str(halted.value).partition("; give ")
    assert value.startswith(f"learner.tokens_per_microbatch={given['tokens_per_microbatch']} ")
    assert "1.50 GiB" in value
    assert {f"learner.{each}" for each in remedies} <= set(remedy.split(" or "))
    assert not {f"learner.{key}={value}" for key, value in given.items()} & set(remedy.split(" or "))


@pytest.mark.parametrize("kind", [CoordinatorActor, LearnerActor, RewardActor, RolloutActor, WeightsActor])
def test_no_settings_are_in_the_name_of_an_actor(kind: type):
    """Ray's dashboard shows the repr of an actor whose class defines one, and otherwise the name alone."""
    assert kind.__repr__ is object.__repr__


def test_a_fault_of_cuda_is_a_crash(tiny_config: Config):
    with pytest.raises(ActorDied, match="illegal memory access"), gpu_faults(tiny_config):
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nCompile with …")
    with pytest.raises(RuntimeError, match="a size"), gpu_faults(tiny_config):
        raise RuntimeError("a size does not fit")


def test_between_calls_it_ends_with_its_gpu(tiny_config: Config, monkeypatch: pytest.MonkeyPatch):
    """A call notices by itself, and a check would wait for its work."""
    ended = threading.Event()

    def end_without_gpu() -> None:
        ended.set()
        raise SystemExit

    def watch() -> None:
        with suppress(SystemExit):
            actor._watch()

    monkeypatch.setattr("os.environ", {})
    monkeypatch.setattr("microbudget_rl.learner.actor.HEARTBEAT_S", 0.001)
    monkeypatch.setattr("microbudget_rl.learner.actor.end_without_gpu", end_without_gpu)
    actor = LearnerActor(tiny_config, "", Share(gpus=0.5, memory=0.5, threads=1), "")
    thread = threading.Thread(target=watch, daemon=True)

    with actor.at_work:
        thread.start()
        assert not ended.wait(0.2)
    thread.join(60.0)
    assert ended.is_set()
