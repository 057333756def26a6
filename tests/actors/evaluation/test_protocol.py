"""What may go on in the folder of an evaluation, and what would mix samples of two policies."""

from pathlib import Path
from typing import Any

import pytest

from microbudget_rl.actors.evaluation.folder import EvaluationFolder, protocol_of
from microbudget_rl.actors.models.adapters import Adapter
from microbudget_rl.actors.storage.documents import AdapterShape, EvaluationDocument, Protocol
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.load import load
from microbudget_rl.conf.schema import Config
from microbudget_rl.conf.settings import changed

CONFIG = load(["conf=quickstart"])


def protocol(config: Config) -> Protocol:
    """Of the base model, without reading any."""
    return protocol_of(config, "nowhere", None)


def begun(path: Path, protocol: Protocol) -> EvaluationFolder:
    """Return a folder with the files of an evaluation with this protocol."""
    folder = EvaluationFolder(path)
    (path / "samples").mkdir(exist_ok=True)
    (path / "samples" / "eval-base-sums.jsonl").touch()
    folder.write(EvaluationDocument(protocol=protocol), "")
    return folder


@pytest.mark.parametrize(
    "change", ["eval.temperature=0.7", "rollout.max_response_tokens=99", "data.system=Hi", "reward.memory_mib=512"]
)
def test_changed_protocol_is_refused_on_resume(tmp_path: Path, change: str):
    folder = begun(tmp_path, protocol(CONFIG))
    other = load(["conf=quickstart", change])
    with pytest.raises(BadInput, match=f"{change.split('=')[0].removeprefix('eval.').removeprefix('rollout.')}="):
        folder.begin(other, protocol(other))


def test_base_model_stays_the_one_that_the_evaluation_began_with(tmp_path: Path):
    hub = changed(CONFIG, {"model.path": "owner/name"})
    folder = begun(tmp_path, protocol(hub).model_copy(update={"model_digest": "a" * 40}))
    assert folder.as_begun(hub).model.pin == "a" * 40
    for other in ({"model.pin": "b" * 40}, {"model.path": "owner/other"}, {"run.overwrite": True}):
        assert folder.as_begun(changed(hub, other)) == changed(hub, other)
    local = changed(CONFIG, {"model.path": str(tmp_path / "model")})
    begun(tmp_path, protocol(local).model_copy(update={"model_digest": "a" * 40}))
    assert folder.as_begun(local) == local  # whose change `begin` refuses


def test_adapter_may_join_but_not_be_exchanged(tmp_path: Path):
    base = protocol(CONFIG)
    known: list[Any] = [AdapterShape.model_validate({"base": "b", "rank": 4, "alpha": alpha}) for alpha in (4, 8)]
    joined = base.model_copy(update={"adapter": "a", "adapter_digest": "1", "adapter_config": known[0]})
    begun(tmp_path, base).begin(CONFIG, joined)
    folder = begun(tmp_path, joined)
    for other, said in (
        (joined.model_copy(update={"adapter_digest": "2"}), "adapter=a, not a with other content"),
        (joined.model_copy(update={"adapter_config": known[1]}), "adapter_config=.*'alpha': 4"),
        (joined.model_copy(update={"model_digest": "2"}), f"model={CONFIG.model.path}, .* with other content"),
        (base, "adapter=a, not None"),
    ):
        with pytest.raises(BadInput, match=said):
            folder.begin(CONFIG, other)


def test_adapter_is_known_by_its_files_and_its_scaling(tiny_model: Path, tiny_config: Config, tmp_path: Path):
    (tmp_path / "adapter_model.safetensors").touch()
    adapter = Adapter(tmp_path, tiny_model.name)
    before = protocol_of(tiny_config, str(tiny_model), adapter).content
    (tmp_path / "adapter_model.safetensors").write_text("other")
    scaled = changed(tiny_config, {"lora.alpha": tiny_config.lora.alpha * 2})
    after = protocol_of(scaled, str(tiny_model), adapter).content
    assert {key for key in before if before[key] != after[key]} == {"adapter_config", "adapter_digest"}
