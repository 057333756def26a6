"""A run's base model stays the one that it began with: the commit of a hub model, the digest of a folder."""

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import constants

from microbudget_rl.actors.models.adapters import pinned
from microbudget_rl.actors.models.files import BUNDLED, bundled_folder, locate, model_digest, name_on_hub, pin_of
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.schema import Config, ModelConfig
from microbudget_rl.conf.settings import changed
from tests.hub import TOKEN, Hub, running_hub

FIRST, SECOND = "1" * 40, "2" * 40
MODEL = ModelConfig(path="owner/name")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_model: Path) -> Iterator[Hub]:
    """A hub with one model, whose second commit changes the tokenizer; its tag v1 is the first."""
    with running_hub() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        template = f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        files = {file.name: file.read_bytes() for file in tiny_model.iterdir()}
        hub.models["owner/name"] = {FIRST: files}
        hub.tags["v1"] = FIRST
        yield hub


def push(hub: Hub) -> None:
    """Add the second commit."""
    first = hub.models["owner/name"][FIRST]
    hub.models["owner/name"][SECOND] = {**first, "chat_template.jinja": b"another template"}


def template(model: ModelConfig) -> bytes:
    return Path(locate(model), "chat_template.jinja").read_bytes()


def test_a_pinned_model_of_the_hub_outlasts_a_new_commit(hub: Hub):
    pin = pin_of(MODEL)
    assert pin == FIRST
    before = template(replace(MODEL, pin=pin))
    push(hub)
    assert template(replace(MODEL, pin=pin)) == before != template(MODEL)
    assert pin_of(MODEL) == SECOND


def test_a_commit_tag_or_branch_may_be_named(hub: Hub):
    push(hub)
    pins = {revision: pin_of(ModelConfig(path=f"owner/name@{revision}")) for revision in ("v1", "main", FIRST)}
    assert pins == {"v1": FIRST, "main": SECOND, FIRST: FIRST}
    assert name_on_hub(ModelConfig(path="owner/name@v1", pin=FIRST)) == ("owner/name", FIRST)
    with pytest.raises(BadInput, match=r"owner/name.* v2;.*@REVISION"):
        locate(ModelConfig(path="owner/name@v2"))


@pytest.mark.parametrize("fault", ["offline", "away", "nonsense", "number"])
def test_without_a_sound_hub_the_cache_suffices(fault: str, hub: Hub, monkeypatch: pytest.MonkeyPatch):
    folder, absent = locate(MODEL), fault in ("offline", "away")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", fault == "offline")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9" if absent else hub.url)
    hub.nonsense = "main" if fault == "nonsense" else "none"
    if fault == "number":
        hub.models["owner/name"][5] = {}  # type: ignore[index]
    assert locate(replace(MODEL, pin=FIRST)) == locate(MODEL) == folder
    monkeypatch.setattr(constants, "HF_HUB_CACHE", "elsewhere")
    with pytest.raises(BadInput, match=f"not in the local cache.*Hub {'cannot be' if absent else 'answers nonsense'}"):
        locate(MODEL)


def test_a_commit_in_the_cache_is_not_requested_and_may_be_gone(hub: Hub):
    pin = pin_of(MODEL)
    folder = locate(replace(MODEL, pin=pin))  # before, only config.json was there
    push(hub)
    del hub.models["owner/name"][FIRST]
    hub.asked.clear()
    assert locate(replace(MODEL, pin=pin)) == folder
    assert hub.asked == []
    shutil.rmtree(constants.HF_HUB_CACHE)
    with pytest.raises(BadInput, match=rf"{FIRST};.*new run"):
        locate(replace(MODEL, pin=pin))


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "chat_template.jinja"])
def test_a_folder_that_has_changed_is_refused(name: str, tiny_model: Path, tmp_path: Path):
    model = ModelConfig(path=str(shutil.copytree(tiny_model, tmp_path / "model")))
    model = replace(model, pin=pin_of(model))
    locate(model)
    content = bytearray((tmp_path / "model" / name).read_bytes())
    content[-1] ^= 1
    (tmp_path / "model" / name).write_bytes(content)
    with pytest.raises(BadInput, match=rf"model\.pin={model.pin};.*run\.name"):
        locate(model)


def test_the_bundled_model_has_a_digest_too(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    shutil.copytree(tiny_model, bundled_folder())
    assert pin_of(ModelConfig(path=BUNDLED)) == pin_of(ModelConfig(path=str(tiny_model))) == model_digest(tiny_model)


def test_only_a_part_of_large_weights_is_read(tmp_path: Path):
    """16 GiB of holes, of which the digest reads 16 MiB; training changes weights everywhere."""
    weights = tmp_path / "model.safetensors"
    weights.touch()
    os.truncate(weights, 2**34)
    before = model_digest(tmp_path)
    with weights.open("r+b") as file:
        file.seek(2**33)
        file.write(b"1" * 2**24)
    assert model_digest(tmp_path) != before


def test_an_adapter_brings_the_revision_of_its_base(hub: Hub, tmp_path: Path):
    """As PEFT means `revision`: the version of the base model to use."""
    push(hub)
    config = changed(Config(), {"model.path": "owner/name", "lora.start_from": str(tmp_path)})
    stated = {"r": 8, "lora_alpha": 8, "target_modules": ["q_proj"], "peft_type": "LORA"}
    for base, revision, given, pin in (
        ("owner/name", FIRST, "", FIRST),
        ("owner/name", "v1", "", FIRST),
        ("owner/name", None, "", SECOND),
        ("owner/name", "v1", SECOND, SECOND),  # a tag may have moved since
        ("/models/name", FIRST, "", SECOND),
        ("owner/name", FIRST, FIRST, FIRST),
    ):
        text = json.dumps(stated | {"base_model_name_or_path": base, "revision": revision})
        (tmp_path / "adapter_config.json").write_text(text)
        assert pinned(changed(config, {"model.pin": given})).model.pin == pin
        assert pinned(changed(config, {"model.pin": given}), str(tmp_path)).model.pin == pin
    with pytest.raises(BadInput, match=rf"start_from=.*{FIRST}.*{SECOND}"):
        pinned(changed(config, {"model.pin": SECOND}))
