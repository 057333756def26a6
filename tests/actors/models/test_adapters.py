"""Adapters to start from: PEFT's own files are accepted, unusable ones are refused by name."""

import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file

from microbudget_rl.actors.models.adapters import check_adapter
from microbudget_rl.actors.models.files import BUNDLED, HUB_NAMES
from microbudget_rl.actors.models.text_part import adapter_shapes
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.schema import Config
from microbudget_rl.conf.settings import changed
from tests.trained_runs import save_adapter

pytestmark = pytest.mark.long


@pytest.fixture
def tiny_config(tiny_config: Config, tmp_path: Path) -> Config:
    return changed(tiny_config, {"lora.start_from": str(tmp_path)})


@pytest.fixture(scope="module")
def fresh(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a fresh adapter as PEFT does."""
    return save_adapter(tmp_path_factory.mktemp("fresh"), tiny_model, std=0.0)


@pytest.fixture
def adapter(fresh: Path, tmp_path: Path) -> Path:
    """Return a copy of it; `tiny_config` starts from it."""
    return shutil.copytree(fresh, tmp_path, dirs_exist_ok=True)


def edit(folder: Path, **settings: Any) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


def test_an_adapter_by_peft_is_accepted(adapter: Path, tiny_config: Config, tiny_model: Path):
    check_adapter(tiny_config, str(tiny_model))
    stored = load_file(adapter / "adapter_model.safetensors")
    expected = adapter_shapes(str(tiny_model), tiny_config.lora.target_modules, tiny_config.lora.rank)
    assert {name: list(value.shape) for name, value in stored.items()} == expected
    edit(adapter, base_model_name_or_path=f"/cache/models--me--{tiny_model.name}/snapshots/0123")
    check_adapter(tiny_config, str(tiny_model))
    edit(adapter, lora_alpha=float(tiny_config.lora.alpha), base_model_name_or_path=HUB_NAMES[BUNDLED])
    check_adapter(changed(tiny_config, {"model.path": BUNDLED}), str(tiny_model))
    check_adapter(changed(tiny_config, {"lora.start_from": ""}), "nowhere")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"peft_type": "LOHA"}, "peft_type is LOHA"),
        ({"rank_pattern": {"q_proj": 8}}, "rank_pattern"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights is pissa"),
        ({"of_a_later_peft": "on"}, "of_a_later_peft"),
        ({"use_dora": True}, "use_dora"),
        ({"modules_to_save": ["embed_tokens"]}, "modules_to_save"),
        ({"alpha_pattern": {"q_proj": 8}}, "alpha_pattern"),
        ({"layers_to_transform": [0]}, "layers_to_transform"),
        ({"r": 8}, "give lora.rank=8"),
        ({"r": 2}, r"shape \[4, \d+\]"),
        ({"r": 1024}, "r=1024"),
        ({"target_modules": ["q_proj"]}, "down_proj"),
        ({"target_modules": ["lm_head"]}, "lm_head"),
        ({"target_modules": "all-linear"}, "target_modules"),
        ({"base_model_name_or_path": "someone/else"}, "made for someone/else.* write .* as base_model_name_or_path"),
        ({"lora_alpha": 8.5}, "lora_alpha=8.5"),
        ({"base_model_name_or_path": None}, "base_model_name_or_path"),
    ],
)
def test_adapters_of_another_kind_are_refused(
    adapter: Path, tiny_config: Config, tiny_model: Path, settings: dict[str, Any], words: str
):
    edit(adapter, **settings)
    with pytest.raises(BadInput, match=words) as caught:
        check_adapter(tiny_config, str(tiny_model))
    assert str(caught.value).startswith(f"lora.start_from={adapter}: ")


def test_modules_that_the_run_does_not_train_are_refused(adapter: Path, tiny_config: Config, tiny_model: Path):
    config = changed(tiny_config, {"lora.target_modules": ["v_proj", "q_proj", "o_proj", "down_proj", "up_proj"]})
    remedy = "lora.target_modules=[v_proj,q_proj,o_proj,down_proj,up_proj,gate_proj,k_proj]"
    with pytest.raises(BadInput, match=re.escape(remedy)):
        check_adapter(config, str(tiny_model))
    check_adapter(tiny_config, str(tiny_model))


def test_damaged_weights_are_refused(adapter: Path, tiny_config: Config, tiny_model: Path):
    file = adapter / "adapter_model.safetensors"
    weights = load_file(file)
    name = next(iter(weights))
    others = {key: value for key, value in weights.items() if key != name}
    for written, words in (
        ({**others, name: weights[name][:, :-1].copy()}, f"{name} has shape"),
        ({**others, name: weights[name] * math.nan}, "not finite"),
        ({**others, name: weights[name].astype("int8")}, "is in I8"),
        (others, f"{name} has shape None"),
        (b"not safetensors", "cannot be read"),
        (None, "pickles"),
    ):
        if isinstance(written, dict):
            save_file(written, file)
        elif written:
            file.write_bytes(written)
        else:
            file.unlink()
        with pytest.raises(BadInput, match=words):
            check_adapter(tiny_config, str(tiny_model))
