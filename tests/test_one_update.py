"""The page of code that shows the algorithm does what it says."""

import runpy
from itertools import cycle
from pathlib import Path

import pytest

from microbudget_rl.actors.messages import Status
from microbudget_rl.rewards.verify import verdict
from tests.conftest import ROOT

pytestmark = pytest.mark.long


@pytest.mark.parametrize("verdicts", [[Status.WRONG], [Status.WRONG, Status.CORRECT]])
def test_one_update_moves_the_weights_if_a_group_has_variance(verdicts: list[Status], tiny_model: Path) -> None:
    one_update = runpy.run_path(str(ROOT / "docs" / "one_update.py"))["one_update"]
    given, varied = cycle(verdicts), len(verdicts) > 1
    one_update.__globals__["verify"] = lambda gold, text: verdict(next(given), text, 0.0)
    few = "rollout.max_response_tokens=8", "rollout.samples_per_problem=4", "learner.problems_per_update=2"
    groups, change = one_update(["conf=quickstart", "data.size=300", f"model.path={tiny_model}", "lora.rank=4", *few])
    assert [len(group.samples) for group in groups] == [4, 4]
    assert [not group.zero_variance for group in groups] == [varied] * 2
    assert (min(change.values()) > 0) == varied
