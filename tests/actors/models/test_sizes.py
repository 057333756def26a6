"""Against counts stated by the models' makers and by the adapters PEFT builds for them."""

from pathlib import Path

import pytest

from microbudget_rl.actors.models import sizes
from microbudget_rl.actors.rollout.vllm_settings import engine_settings
from microbudget_rl.actors.runtime.placement import Share
from microbudget_rl.conf.load import load
from microbudget_rl.conf.schema import ShapeConfig
from microbudget_rl.conf.schema.model import PROJECTIONS
from microbudget_rl.conf.settings import changed

QWEN = load(["conf=instruct"]).model.shape
SMOLLM = load(["conf=quickstart"]).model.shape
LLAMA_1B = ShapeConfig(16, 2048, 8192, 32, 8, 64, 128256, tie_word_embeddings=True, max_position_embeddings=131072)


@pytest.mark.parametrize(("shape", "count"), [(QWEN, 1_543_714_304), (SMOLLM, 134_515_008), (LLAMA_1B, 1_235_814_400)])
def test_parameters_of_known_models(shape: ShapeConfig, count: int):
    assert sizes.parameters(shape) == pytest.approx(count, rel=1e-3)


def test_an_untied_head_adds_weights_but_no_products():
    untied = ShapeConfig(**{**vars(SMOLLM), "tie_word_embeddings": False})
    assert sizes.parameters(untied) - sizes.parameters(SMOLLM) == 49152 * 576
    assert sizes.matmul_parameters(untied) == sizes.matmul_parameters(SMOLLM) == sizes.parameters(SMOLLM)


@pytest.mark.parametrize(("shape", "per_rank"), [(QWEN, 1_154_048), (LLAMA_1B, 704_512)])
def test_adapter_on_all_linear_layers(shape: ShapeConfig, per_rank: int):
    assert sizes.lora_parameters(shape, 1, PROJECTIONS) == per_rank
    assert sizes.lora_parameters(shape, 256, PROJECTIONS) == 256 * per_rank
    assert sizes.lora_parameters(SMOLLM, 2, ["k_proj"]) == 30 * 2 * (576 + 192)


def test_activations_of_the_bundled_model_are_those_that_autograd_saves():
    assert sizes.activation_bytes(SMOLLM, rank=32, size=2) / 30 == pytest.approx(22_772, rel=0.01)


@pytest.mark.parametrize(("staleness", "slots"), [(0, 2), (1, 2), (2, 3), (3, 4), (64, 4)])
def test_an_engine_has_a_slot_for_each_version_in_flight(staleness: int, slots: int, tmp_path: Path):
    (tmp_path / "config.json").write_text("{}")
    config = load(["conf=r256_instruct", f"learner.max_staleness={staleness}"])
    assert sizes.adapter_slots(config) == slots
    settings = engine_settings(config, str(tmp_path), Share(gpus=0.5, memory=0.5), None)
    assert (settings["max_loras"], settings["max_cpu_loras"]) == (slots, slots)


def test_groups_queue_in_an_engine_on_a_gpu():
    config = load(["conf=r64_instruct"])
    assert (sizes.groups_at_once(config, "cpu"), sizes.groups_at_once(config, "cuda")) == (16, 32)
    config = changed(config, {"rollout.max_concurrent_samples": 1})
    assert sizes.groups_at_once(config, "cuda") == 1
