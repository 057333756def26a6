from dataclasses import replace

import pytest

from conf.errors import BadInput
from conf.load import load
from launch.plan.options import options, scale
from launch.plan.time import LEARN_RANGE, TOGETHER, Calibration
from tests.launch.plan.plans import CPU, estimated, machine, plan


def test_other_splits_are_named() -> None:
    learning = ["learning at 20% of the rate", "learning at 43% of the rate"]
    names = list(options(plan("r8_instruct", machine("A40", 4))))
    assert names == ["learner.max_staleness=0", *learning, "learner.world_size=2", "5 × A40"]
    names = list(options(plan("r8_instruct", machine("A40", 4), "rollout.actors=2", "learner.world_size=2")))
    worlds = ["learner.world_size=1", "learner.world_size=3"]
    assert names == ["learner.max_staleness=0", *learning, *worlds, "5 × A40"]
    assert list(options(plan("quickstart", CPU))) == ["learner.max_staleness=0"]


def test_learning_on_an_unmeasured_gpu_is_a_range() -> None:
    made = plan("r256_instruct", machine("A40"))
    found, others = estimated(made), options(made)
    slow, fast = (others[f"learning at {rate:.0%} of the rate"] for rate in LEARN_RANGE)
    assert fast.update_s < found.update_s < slow.update_s
    assert others["run.nvidia_mps=on"].update_s < 0.95 * found.update_s
    measured = replace(made, calibration=Calibration(together=1.1, of="20 updates"))
    assert list(options(measured)) == ["learner.max_staleness=0", "run.nvidia_mps=on", "2 × A40"]
    assert (made.together, measured.together) == (TOGETHER[False], 1.1)


def test_gpus_are_planned_with_the_batch_and_with_one_that_grows() -> None:
    rows = list(scale(plan("r8_instruct", machine("A40")), [1, 2]))
    assert [(row.machine.gpus, row.config.learner.problems_per_update) for row in rows] == [(1, 16), (2, 16), (2, 32)]
    assert estimated(rows[0]).update_s > estimated(rows[1]).update_s


def test_only_a_plan_that_fits_a_gpu_is_scaled() -> None:
    with pytest.raises(BadInput, match=r"simulate=\[4\].*device="):
        list(scale(plan("quickstart", CPU), [4]))
    with pytest.raises(BadInput, match=r"simulate=\[1\]: .*T4.*model\.dtype"):
        list(scale(plan("r8_instruct", machine("T4")), [1]))
    for settings in (["simulate=[8]"], ["simulate=[0]", "plan=true"], ["simulate=[2000]", "plan=true"]):
        with pytest.raises(BadInput, match="simulate="):
            load(["conf=r8_instruct", *settings])
