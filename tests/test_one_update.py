"""The page of code that shows the algorithm does what it says."""

import runpy
from itertools import cycle
from pathlib import Path

import pytest

from microbudget_rl.actors.messages import Batch, Status
from microbudget_rl.conf.load import load
from microbudget_rl.learner.learner import LoraLearner
from microbudget_rl.rewards.verify import verdict
from tests.conftest import ROOT
from tests.learner.helpers import update

FEW = """conf=quickstart data.size=300 model.dtype=float32 lora.rank=4 lora.dropout=0.2 rollout.max_response_tokens=8
    rollout.samples_per_problem=4 learner.problems_per_update=2 learner.learning_rate=0.3"""

pytestmark = pytest.mark.long


def test_it_is_the_first_update_of_a_run(tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Each starts from the result of the one before, and the last is sure of what it samples."""
    page, start = runpy.run_path(str(ROOT / "docs" / "one_update.py")), ""
    one_update = page["one_update"]
    for varied, settings in (
        (False, ""),
        (True, "learner.warmup_updates=6 learner.weight_decay=1"),
        (True, "algorithm.entropy=0.5 algorithm.steps_per_batch=3 learner.beta2=0.9 rollout.temperature=0.1"),
    ):
        given = cycle([Status.WRONG, Status.CORRECT][: 1 + varied])
        one_update.__globals__["verify"] = lambda gold, text, given=given: verdict(next(given), text, 0.0)
        asked = f"{FEW} {settings} model.path={tiny_model} lora.start_from={start}".split()
        groups, norms = one_update(asked)
        assert [len(group.samples) * (not group.zero_variance) for group in groups] == [4 * varied] * 2
        stats = update(
            LoraLearner(load(asked), str(tiny_model), tmp_path / str(len(settings))), Batch(0, tuple(groups))
        )
        start = stats.adapter.path
        assert norms == pytest.approx({name: stats.metrics[f"adapter/norm/{name}"] for name in norms}, rel=1e-3)
        assert (min(norms.values()) > 0) == varied
    assert min(min(sample.logprobs) for group in groups for sample in group.samples) > -20
    assert page["main"]([*asked, "algorithm.kl=1"]) == 2
    assert "algorithm.kl=1" in capsys.readouterr().err
