"""The page of code that shows the algorithm does what it says."""

import runpy
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

from microbudget_rl.actors.messages import Batch, Status
from microbudget_rl.conf.load import load
from microbudget_rl.conf.settings import changed
from microbudget_rl.learner.learner import LoraLearner
from microbudget_rl.learner.model.adapter import write_adapter
from microbudget_rl.rewards.verify import verdict
from tests.conftest import ROOT
from tests.learner.helpers import update

FEW = ["conf=quickstart", "data.size=300", "lora.rank=4", "learner.problems_per_update=2"]
FEW += ["rollout.max_response_tokens=8", "rollout.samples_per_problem=4"]
MIXED = [Status.WRONG, Status.CORRECT]
PAGE = ROOT / "docs" / "one_update.py"


def page(verdicts: list[Status]) -> Any:
    one_update, given = runpy.run_path(str(PAGE))["one_update"], cycle(verdicts)
    one_update.__globals__["verify"] = lambda gold, text: verdict(next(given), text, 0.0)
    return one_update


@pytest.mark.long
@pytest.mark.parametrize(
    ("verdicts", "settings"),
    [
        ([Status.WRONG], []),
        (MIXED, ["learner.warmup_updates=6", "learner.learning_rate=0.1", "learner.weight_decay=1"]),
        (MIXED, ["algorithm.entropy=0.5", "lora.dropout=0.2"]),
        (MIXED, ["algorithm.steps_per_batch=3", "algorithm.kl=5", "learner.beta2=0.9", "lora.start_from=START"]),
    ],
)
def test_one_update_is_the_first_of_a_run(
    verdicts: list[Status], settings: list[str], tiny_model: Path, tmp_path: Path
) -> None:
    few, start = [*FEW, f"model.path={tiny_model}"], tmp_path / "start"
    if "lora.start_from=START" in settings:
        other = LoraLearner(changed(load(few), {"model.dtype": "float32"}), str(tiny_model), tmp_path)
        for parameter in other.model.parameters():
            if parameter.requires_grad:
                parameter.data.uniform_(-0.3, 0.3)
        write_adapter(other.model, start, durable=False)
    given = [*few, *(each.replace("START", str(start)) for each in settings)]
    groups, norms = page(verdicts)(given)
    learner = LoraLearner(changed(load(given), {"model.dtype": "float32"}), str(tiny_model), tmp_path)
    scores = learner.score(tuple(groups))
    for group, scored in zip(groups, scores, strict=True):
        for sample, score in zip(group.samples, scored, strict=True):
            assert sample.logprobs == pytest.approx(score.policy, abs=1e-4)
    metrics = update(learner, Batch(0, tuple(groups))).metrics
    assert [not group.zero_variance for group in groups] == [verdicts == MIXED] * 2
    assert (metrics["grad_norm"] > 0) == (verdicts == MIXED)
    expected = {name.rpartition("/")[2]: value for name, value in metrics.items() if "adapter/norm" in name}
    assert norms == pytest.approx(expected, rel=1e-3)


@pytest.mark.long
@pytest.mark.parametrize("setting", ["learner.dynamic_sampling=true", "warm_start.source=self", "learner.no=1"])
def test_what_one_update_cannot_follow_is_refused(setting: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert runpy.run_path(str(PAGE))["main"]([*FEW, setting]) == 2
    assert setting.partition("=")[0] in capsys.readouterr().err
