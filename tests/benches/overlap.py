"""Compares rollouts and learner at the same time (`learner.max_staleness=1`) with taking turns (`=0`).

Both sides are runs of the quickstart with the same seed and number of updates. Problems and requests are the same,
responses are not, because staleness differs.
"""

from tempfile import TemporaryDirectory

from microbudget_rl.launch.plan.measurements import pace_of
from microbudget_rl.launch.plan.time import Pace
from tests.benches.results import Result, Row, carry_out

UPDATES = 16

SKIPPED = 4
"""Number of first updates, in which buffers fill and kernels compile."""

CASE = "quickstart, max_staleness=1 against 0"


def run() -> Result:
    overlapped, in_turns = (measure(staleness) for staleness in (1, 0))
    apart = 60 / max(overlapped.generate_s, overlapped.learn_s)
    whole = 60 / (in_turns.generate_s + in_turns.learn_s)
    return Result(
        (
            Row(CASE, "updates_per_minute", 60 / overlapped.update_s, 60 / in_turns.update_s),
            Row(CASE, "rollouts_idle", *(1 - pace.generate_s / pace.update_s for pace in (overlapped, in_turns))),
            Row(CASE, "learner_idle", *(1 - pace.learn_s / pace.update_s for pace in (overlapped, in_turns))),
        ),
        {
            "updates_per_minute": max(apart, whole),
            "each on its share at the same time": apart,
            "one after the other, no time lost": whole,
        },
        (
            f"{UPDATES - SKIPPED} updates of each after {SKIPPED} that are not measured; idle: fraction of the time.",
            "The limit is the larger of two: the slower side's own speed, and all work in turns with no time lost.",
        ),
    )


def measure(max_staleness: int) -> Pace:
    with TemporaryDirectory() as folder:
        settings = {"eval.problems": 0, "budget.minutes": 60, "budget.updates": UPDATES, "checkpoint.every": UPDATES}
        return pace_of(carry_out(folder, settings | {"learner.max_staleness": max_staleness}), SKIPPED)
