"""Many samples of many problems, by one policy or two: one of each problem a round."""

import asyncio
from collections.abc import Callable, Iterator, Sequence

from actors.evaluation.evaluator import judged_sample
from actors.protocols import Clock, Engine, Verifier
from actors.seeds import request_seed
from actors.storage.transcript import Transcript
from conf.schema import Config

Turn = tuple[Transcript, int, int]
"""A transcript, the number of a sample, and the index of its problem."""


class SharedTime:
    """Divides time equally among what is under way: the parts add up to the time in which anything was."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._running = 0
        self._each = 0.0
        self._looked = clock.now()

    def begin(self) -> float:
        """Something more is under way from now on; what `end` needs to know."""
        self._look()
        self._running += 1
        return self._each

    def end(self, begun: float) -> float:
        """It is no longer; its seconds."""
        self._look()
        self._running -= 1
        return self._each - begun

    def _look(self) -> None:
        now = self._clock.now()
        if self._running:
            self._each += (now - self._looked) / self._running
        self._looked = now


def turns(transcripts: Sequence[Transcript]) -> Iterator[Turn]:
    """All samples still to be drawn, in rounds over the problems of all transcripts."""
    for number in range(max(transcript.n for transcript in transcripts)):
        for transcript in transcripts:
            for index in transcript.missing(number):
                yield transcript, number, index


async def examine(
    config: Config,
    engine: Engine,
    verifier: Verifier,
    transcripts: Sequence[Transcript],
    clock: Clock,
    most_running: int,
    on_sample: Callable[[], None],
) -> None:
    """Draw and judge what is missing, `most_running` samples at a time, and keep each as it comes.

    The seed of a sample follows from problem and number alone, whatever else is asked or was drawn before; base model
    and adapter share it. A round begins as soon as there is room for it, not when the one before has ended.
    """
    time = SharedTime(clock)
    room = asyncio.Semaphore(most_running)

    async def draw(transcript: Transcript, number: int, index: int) -> None:
        problem = transcript.problems[index]
        seed = request_seed(config.run.seed, f"evaluate/{problem.id}", number)
        place = number * len(transcript.problems) + index
        begun = time.begin()
        group = await judged_sample(config, engine, verifier, place, problem, transcript.adapter, seed)
        transcript.append(number, group, time.end(begun))
        room.release()
        on_sample()

    async with asyncio.TaskGroup() as tasks:
        for turn in turns(transcripts):
            await room.acquire()
            tasks.create_task(draw(*turn))
