"""The planned time of the warm start."""

import math
from dataclasses import dataclass

from actors.runtime.placement import Placement
from conf.schema import Config
from conf.schema.warm_start import PASSES, SAMPLING_SHARE
from launch.plan.time import Costs, Workload

RIGHT = 0.066
"""Assumed fraction of the model's own responses that are right: that of the bundled model in quickstart_warm."""


@dataclass(frozen=True)
class WarmStart:
    """The planned warm start.

    samples, sample_s: the model's own responses, and seconds for them
    updates, update_s: its updates, and seconds of each
    most_s: seconds that it may take; without end in a deterministic run
    """

    samples: int
    sample_s: float
    updates: int
    update_s: float
    most_s: float

    @property
    def seconds(self) -> float:
        return min(self.sample_s + self.updates * self.update_s, self.most_s)


def plan_warm_start(
    config: Config, costs: Costs, workload: Workload, placement: Placement, response_s: float
) -> WarmStart:
    """Return the warm start of a run that has one. response_s: seconds of the engines per response."""
    warm, each = config.warm_start, config.rollout.samples_per_problem
    most_s = math.inf if config.run.deterministic else warm.fraction * config.budget.seconds
    samples, found = 0, warm.demonstrations
    if warm.from_itself:
        per_problem = min(RIGHT * each, warm.per_problem)
        in_time = SAMPLING_SHARE * most_s / (each * response_s)
        most = sum(each.size or math.inf for each in config.data.by_source.values())
        groups = int(min(math.ceil(found / per_problem), most, in_time))
        samples = groups * each
        found = min(found, max(1, int(groups * per_problem)))
    tokens = min(warm.demonstrations, warm.demonstrations_per_update) * (workload.fresh + workload.response)
    update_s = tokens * costs.learn_s / len(placement.learners) + costs.update_s
    updates = PASSES * math.ceil(found / warm.demonstrations_per_update)
    return WarmStart(
        samples=samples,
        sample_s=samples * response_s,
        updates=min(updates, warm.updates or updates),
        update_s=update_s / config.algorithm.steps_per_batch,
        most_s=most_s,
    )
