"""The part for text of a model that also takes images: its weights, its adapter and its export."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from microbudget_rl.actors.models.adapters import CONFIG_FILE, WEIGHTS_FILE, adopt_adapter, check_adapter
from microbudget_rl.actors.models.text_part import OWN, STORED, whole_model
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.schema import Config
from microbudget_rl.conf.settings import changed
from microbudget_rl.launch.trained.merged import load_model as load_export
from microbudget_rl.launch.trained.merged import write_merged
from microbudget_rl.launch.trained.served import reference
from microbudget_rl.learner.model.adapter import effective_ranks, load_model, write_adapter
from tests.learner.model.families import BY_NAME, build, trained

pytestmark = pytest.mark.long


@pytest.mark.parametrize("name", ["Qwen 3.5", "Gemma 4"])
def test_an_adapter_fits_the_whole_model_and_its_export(name: str, tmp_path: Path):
    family, (model, adapter, alone, merged) = BY_NAME[name], (tmp_path / each for each in "mnop")
    build(family).save_pretrained(model)
    settings: dict[str, Any] = {"model.path": str(model), "model.dtype": "float32", "lora.rank": 4, "lora.alpha": 8}
    config = changed(Config(), settings | {"lora.target_modules": family.targets})
    learned = trained(load_model(config, str(model))).eval()
    write_adapter(learned, adapter, durable=False)
    merged.mkdir()
    run: Any = SimpleNamespace(model_path=str(model), adapter=adapter, config=config)
    write_merged(run, merged, whole=True)
    again = changed(config, {"lora.start_from": str(adapter)})
    check_adapter(again, str(model))
    shutil.copytree(adapter, alone)
    stored = load_file(alone / WEIGHTS_FILE)
    save_file({key.replace(STORED, OWN): weight for key, weight in stored.items()}, alone / WEIGHTS_FILE)
    stated = json.loads((alone / CONFIG_FILE).read_text())
    (alone / CONFIG_FILE).write_text(json.dumps(stated | {"exclude_modules": None}))
    for folder, part in ((adapter, False), (alone, True)):
        assert adopt_adapter(config, str(folder), str(model), part)[0].lora.target_modules == sorted(family.targets)
    with pytest.raises(BadInput, match="has shape None"):  # vLLM would not apply it
        adopt_adapter(config, str(alone), str(model))
    same = [reference(str(model), each) for each in (adapter, alone)]
    same += [load_model(again, str(model)), load_export(str(merged))]
    outside = {"per_layer_model_projection"} & {*family.targets}
    assert {key for key in effective_ranks(learned) if "." not in key} == outside
    ids = torch.arange(130, 160)[None]
    with torch.no_grad():
        expected = learned(ids).logits
        with learned.disable_adapter():
            moved = (learned(ids).logits - expected).abs().max()
        assert all((each.eval()(ids).logits - expected).abs().max() < 1e-4 * moved for each in same)


def test_a_missing_weight_is_not_drawn_at_random(tmp_path: Path):
    build(BY_NAME["Gemma 4"]).save_pretrained(tmp_path)
    file, name = tmp_path / "model.safetensors", "per_layer_model_projection.weight"
    weights = load_file(file)
    del weights[f"model.language_model.{name}"]
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(BadInput, match=f"lack model.{name}"):
        whole_model(str(tmp_path))
