"""What may go on in the folder of an evaluation, and what would mix samples of two policies."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from actors.evaluation.protocol import model_digest, protocol_of
from actors.evaluation.samples import EvaluationFolder
from actors.models.adapters import Adapter
from actors.storage.documents import AdapterShape, Protocol
from actors.storage.files import replace_text
from actors.storage.folders import MARK
from conf.errors import BadInput
from conf.load import load
from conf.parsing import FORMAT
from conf.schema import Config
from conf.settings import changed


def protocol(config: Config) -> Protocol:
    """Of the base model, without reading any."""
    return protocol_of(config, "nowhere", None)


def begun(folder: Path, protocol: Protocol, **document: Any) -> EvaluationFolder:
    """Write the files of an evaluation with this protocol."""
    (folder / "samples").mkdir(parents=True, exist_ok=True)
    (folder / "samples" / "sums-base.jsonl").touch()
    replace_text(folder / "evaluation.json", json.dumps({"format": FORMAT, "protocol": protocol.content, **document}))
    return EvaluationFolder(folder)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("eval.temperature=0.7", "temperature="),
        ("rollout.max_response_tokens=99", "max_response_tokens="),
        ("data.system=Hi", "data.system="),
    ],
)
def test_changed_protocol_is_refused_on_resume(tmp_path: Path, change: str, named: str) -> None:
    folder = begun(tmp_path, protocol(load(["conf=quickstart"])))
    other = load(["conf=quickstart", change])
    with pytest.raises(BadInput, match=f"{named}.*run.overwrite=true"):
        folder.begin(other, protocol(other))
    other = changed(other, {"run.overwrite": True})
    folder.begin(other, protocol(other))
    assert [path.name for path in tmp_path.iterdir()] == [MARK]


def test_adapter_may_join_but_not_be_exchanged(tmp_path: Path) -> None:
    config = load(["conf=quickstart"])
    base = protocol(config)
    known: list[Any] = [AdapterShape.model_validate({"base": "b", "rank": 4, "alpha": alpha}) for alpha in (4, 8)]
    joined = base.model_copy(update={"adapter": "a", "adapter_digest": "1", "adapter_config": known[0]})
    begun(tmp_path, base).begin(config, joined)
    folder = begun(tmp_path, joined)
    for other, said in (
        (joined.model_copy(update={"adapter_digest": "2"}), "adapter=a, not a with other content"),
        (joined.model_copy(update={"adapter_config": known[1]}), "adapter_config=.*'alpha': 4"),
        (joined.model_copy(update={"model_digest": "2"}), f"model={config.model.path}, .* with other content"),
        (base, "adapter=a, not None"),
    ):
        with pytest.raises(BadInput, match=said):
            folder.begin(config, other)


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
    before = protocol_of(tiny_config, str(tiny_model), adapter).content
    tiny_config = changed(tiny_config, {"lora.alpha": tiny_config.lora.alpha * 2})
    after = protocol_of(tiny_config, str(model), adapter).content
    assert {key for key in before if before[key] != after[key]} == {"adapter_config", "model_digest"}
