"""How many groups a second the one coordinator can take, and whether a group costs more when there are ten times more.

The run's own coordinator over modelled engines, learner and verifier under virtual time: nothing waits, so the time it
takes is work. What the transport of a group costs is measured beside it, on a group of the paper's lengths.
"""

import copy
import pickle
import time
from array import array
from dataclasses import replace

from actors.messages import Group, Problem, Sample
from conf.load import load
from launch.benches.report import Report, Row
from launch.plan.calibration import UNMEASURED
from launch.plan.forecast import forecast
from launch.plan.machine import detect
from launch.plan.plan import Plan, make_plan
from launch.plan.roofline import workload_of

GPUS = 51
"""Of the smaller case; the larger one has ten times as many, and both a batch that grows with them."""

TOKENS = 1800
"""Of an answer, and with eight answers a group."""

HOPS = 6
"""Times that the coordinator reads or writes a group: from the engine, to the verifier and back, to the learner."""


def run() -> Report:
    few, many = (grown(gpus) for gpus in (GPUS, 10 * GPUS))
    before, after = map(forecast, (few, many))
    needed = many.config.learner.problems_per_update / after.update_s
    sustained = 1 / after.group_cpu_s
    tuples, arrays = transport(as_arrays=False), transport(as_arrays=True)
    return Report(
        (
            Row(f"{10 * GPUS} GPUs against {GPUS}", "groups_per_cpu_second", sustained, 1 / before.group_cpu_s),
            Row("transport of a group as arrays against tuples", "groups_per_cpu_second", 1 / arrays, 1 / tuples),
        ),
        {
            f"groups/s that {10 * GPUS} A40s make at r=8": needed,
            "of one core here, with transport": needed * (after.group_cpu_s + arrays),
        },
        (
            f"{after.groups} groups against {before.groups}. A group's cost includes the modelled actors' own.",
            f"Transport: {HOPS} times pickled or unpickled, 8 answers of {TOKENS} tokens.",
        ),
    )


def grown(gpus: int) -> Plan:
    """The plan of the paper's smallest rank on so many A40s, its batch as many times as large."""
    config = load(["conf=r8_instruct"])
    config.learner.problems_per_update *= gpus
    one = detect("A40")
    work = replace(workload_of(config), spread=0.0)  # so that the models have the least to do
    return make_plan(config, replace(one, gpus=gpus, cores=tuple(range(8 * gpus))), replace(UNMEASURED, workload=work))


def transport(as_arrays: bool) -> float:
    """Seconds of this processor for all hops of one group."""
    tokens, logprobs = tuple(range(1000, 1000 + TOKENS)), tuple(-number / 7 for number in range(TOKENS))
    sample = (
        Sample(array("i", tokens), array("d", logprobs), "", "stop") if as_arrays else Sample(tokens, logprobs, "", "")
    )
    group = Group(0, Problem("p", "", tokens[:256], ""), None, tuple(copy.deepcopy(sample) for _ in range(8)))
    began, count = time.process_time(), 0
    while count < 20 or time.process_time() - began < 1.0:
        for _ in range(HOPS // 2):
            group = pickle.loads(pickle.dumps(group, protocol=5))
        count += 1
    return (time.process_time() - began) / count
