"""What may go on in the folder of an evaluation, and what would mix samples of two policies."""

import fcntl
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from actors.messages import ProblemSet
from actors.models.adapters import Adapter
from actors.storage.evaluation_folder import EvaluationFolder
from actors.storage.files import replace_text
from actors.storage.folders import MARK
from conf.errors import BadInput
from conf.load import load
from conf.schema import Config
from launch.evaluation.sampling_protocol import model_digest, protocol_of, take_evaluation
from launch.session.resume import begin, find_folder


def protocol(config: Config) -> dict[str, Any]:
    """Of the base model, without reading any."""
    return protocol_of(config, "nowhere", None)


def begun(folder: Path, protocol: dict[str, Any]) -> None:
    """Leave behind what an evaluation by this protocol would."""
    (folder / "samples").mkdir(parents=True, exist_ok=True)
    (folder / "samples" / "sums-base.jsonl").touch()
    replace_text(folder / "evaluation.json", json.dumps({"protocol": protocol}))


@pytest.mark.parametrize("change", ["eval.temperature=0.7", "run.seed=1", "rollout.max_response_tokens=99"])
def test_changed_protocol_is_refused_on_resume(tmp_path: Path, change: str) -> None:
    begun(tmp_path, protocol(load(["conf=quickstart"])))
    changed = load(["conf=quickstart", change])
    key = change.partition("=")[0].rpartition(".")[2]
    with pytest.raises(BadInput, match=f"was begun with {key}="):
        take_evaluation(EvaluationFolder(tmp_path), changed, protocol(changed))
    changed.run.overwrite = True
    take_evaluation(EvaluationFolder(tmp_path), changed, protocol(changed))
    assert [path.name for path in tmp_path.iterdir()] == [MARK]


def test_results_are_not_kept_under_another_protocol_though_their_samples_are_gone(tmp_path: Path) -> None:
    config = load(["conf=quickstart"])
    document = {"protocol": protocol(config) | {"seed": 1}, "benchmarks": [{"name": "sums"}]}
    replace_text(tmp_path / "evaluation.json", json.dumps(document))
    with pytest.raises(BadInput, match="was begun with seed=1"):
        take_evaluation(EvaluationFolder(tmp_path), config, protocol(config))


def test_more_samples_and_problems_may_be_asked_for(tmp_path: Path) -> None:
    begun(tmp_path, protocol(load(["conf=quickstart"])))
    more = load(["conf=quickstart", "n=64", "limit=3", "budget.minutes=1"])
    take_evaluation(EvaluationFolder(tmp_path), more, protocol(more))


def test_adapter_may_join_but_not_be_exchanged(tmp_path: Path) -> None:
    config = load(["conf=quickstart"])
    base = protocol(config)
    begun(tmp_path, base)
    joined = base | {"adapter": "a", "adapter_digest": "1", "adapter_config": {"alpha": 4}}
    take_evaluation(EvaluationFolder(tmp_path), config, joined)
    for other, said in (
        (joined | {"adapter_digest": "2"}, "adapter=a, not a with other content"),
        (joined | {"adapter_config": {"alpha": 8}}, "adapter_config={'alpha': 4}, not {'alpha': 8}"),
        (joined | {"model_digest": "2"}, "model=embedded:smollm2-135m, not embedded:smollm2-135m with other content"),
        (base, "adapter=a, not None"),
    ):
        begun(tmp_path, joined)
        with pytest.raises(BadInput, match=said):
            take_evaluation(EvaluationFolder(tmp_path), config, other)


def test_policy_is_known_by_what_its_files_hold(tiny_model: Path, tiny_config: Config, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    assert model_digest(str(model)) == model_digest(str(tiny_model))
    weights = bytearray((model / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (model / "model.safetensors").write_bytes(weights)
    assert model_digest(str(model)) != model_digest(str(tiny_model))

    (tmp_path / "adapter_model.safetensors").touch()
    adapter = Adapter(tmp_path, tiny_model.name)
    before = protocol_of(tiny_config, str(tiny_model), adapter)
    tiny_config.lora.alpha *= 2
    after = protocol_of(tiny_config, str(model), adapter)
    assert {key for key in before if before[key] != after[key]} == {"adapter_config", "model_digest"}


def test_two_processes_do_not_share_an_evaluation(tmp_path: Path) -> None:
    config = load(["conf=quickstart"])
    others = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(others, fcntl.LOCK_EX)
    with pytest.raises(BadInput, match="at work in another process"):
        take_evaluation(EvaluationFolder(tmp_path), config, protocol(config))
    os.close(others)
    take_evaluation(EvaluationFolder(tmp_path), config, protocol(config))


def test_evaluation_is_no_run_and_goes_when_its_run_is_overwritten(tmp_path: Path) -> None:
    settings = ["conf=quickstart", f"run.folder={tmp_path}"]
    config = load(settings)
    folder = tmp_path / "quickstart"
    take_evaluation(EvaluationFolder(folder / "evaluation"), config, protocol(config))
    config.run.overwrite = True
    begin(config, find_folder(config), ProblemSet((), (), {}))
    assert (folder / "evaluation").exists()
    begin(config, find_folder(config), ProblemSet((), (), {}))
    assert not (folder / "evaluation").exists()
