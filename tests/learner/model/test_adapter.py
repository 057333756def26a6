"""The adapter on disk, as noise, and its size, on a learner of a tiny model."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from actors.models.adapters import adopt_adapter, check_adapter
from actors.protocols import FAITHFUL
from conf.schema import Config
from conf.settings import changed
from learner.learner import LoraLearner
from learner.model.adapter import adapter_norms, effective_rank, load_model, write_adapter
from learner.model.projection import Projection
from tests.learner.helpers import Build, batch, own_attention, reference_logprobs, same, update, weights


def test_published_adapter_gives_the_same_logits_in_peft(
    learner: LoraLearner, tiny_model: Path, build_group: Build
) -> None:
    adapter = update(learner, batch(build_group)).adapter
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    loaded = PeftModel.from_pretrained(base, adapter.path)
    assert all(isinstance(module, Projection) for module in learner.model.modules() if isinstance(module, LoraLayer))
    assert not any(isinstance(module, Projection) for module in loaded.modules())
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        torch.testing.assert_close(loaded(ids).logits, own_attention(learner)(ids).logits, rtol=0, atol=0)
    saved = load_file(Path(adapter.path) / "adapter_model.safetensors")
    assert max(tensor.abs().max() for name, tensor in saved.items() if "lora_B" in name) > 0
    assert sorted(path.name for path in Path(adapter.path).iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]


def test_a_run_can_start_from_an_adapter(
    tiny_config: Config, tiny_model: Path, tmp_path: Path, build_group: Build
) -> None:
    """With rsLoRA, whose flag vLLM and PEFT read from the adapter's configuration."""
    tiny_config = changed(tiny_config, {"lora.rslora": True})
    first = LoraLearner(tiny_config, str(tiny_model), tmp_path / "a")
    adapter = update(first, batch(build_group)).adapter
    stated = json.loads((Path(adapter.path) / "adapter_config.json").read_text())
    assert stated["use_rslora"] is True
    tiny_config = changed(tiny_config, {"lora.start_from": adapter.path})
    check_adapter(tiny_config, str(tiny_model))
    second = LoraLearner(tiny_config, str(tiny_model), tmp_path / "b")
    assert second.version == 0
    assert same(weights(first), weights(second))
    masters = {name: value for name, value in first._optimizer.state().items() if name.endswith("master")}
    assert same(masters, {name: second._optimizer.state()[name] for name in masters})
    group = build_group(1)
    assert second.score((group,)) == first.score((group,))
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    loaded = PeftModel.from_pretrained(base, second.publish().path)
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        torch.testing.assert_close(loaded(ids).logits, own_attention(first)(ids).logits, rtol=0, atol=0)


def test_only_what_a_later_process_goes_on_from_waits_for_the_disk(
    learner: LoraLearner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr("learner.model.adapter.sync", synced.append)
    learner.publish()
    assert not synced
    write_adapter(learner.model, tmp_path / "adapter", durable=True)
    assert {path.name for path in synced} >= {"adapter_model.safetensors", "adapter_config.json", tmp_path.name}


@pytest.mark.parametrize("init", ["default", "gaussian"])
def test_every_init_begins_as_the_base_model_and_stays_a_plain_lora(
    tiny_config: Config, tiny_model: Path, tmp_path: Path, build_group: Build, init: str
) -> None:
    """Log-probabilities at version 0 are the base model's bit for bit. What is trained passes for a plain LoRA, and
    PEFT puts it on the base model as that was.
    """
    tiny_config = changed(tiny_config, {"lora.init": init})
    learner = LoraLearner(tiny_config, str(tiny_model), tmp_path / "adapters")
    before = weights(learner)
    assert same(before, {n: p for n, p in load_model(tiny_config, str(tiny_model)).named_parameters() if n in before})
    ((scores, *_),) = learner.score((build_group(1),))
    assert scores.policy == scores.base
    adapter = update(learner, batch(build_group)).adapter
    ((scores, *_),) = learner.score((build_group(1),))
    assert scores.policy != scores.base
    tiny_config = changed(tiny_config, {"adapter": adapter.path})
    assert adopt_adapter(tiny_config, str(tiny_model))[1] is not None
    loaded = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32), adapter.path
    )
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        torch.testing.assert_close(loaded(ids).logits, own_attention(learner)(ids).logits, rtol=0, atol=0)


def test_adapter_norms(learner: LoraLearner, build_group: Build) -> None:
    assert set(adapter_norms(learner.model).values()) == {0.0}
    update(learner, batch(build_group))
    norms = adapter_norms(learner.model)
    assert norms.keys() == set(learner.config.lora.target_modules)
    state = {name: value.double() for name, value in weights(learner).items()}
    for kind, norm in norms.items():
        products = [
            2.0 * state[name.replace("lora_A", "lora_B")] @ state[name] for name in state if f".{kind}.lora_A" in name
        ]
        assert len(products) == 2
        assert norm == pytest.approx(torch.stack([p.norm() for p in products]).norm().item(), rel=1e-5)


def test_synthetic_adapters_and_the_mistakes_with_them_are_seen_as_peft_sees_them(
    learner: LoraLearner, build_group: Build, tiny_config: Config, tiny_model: Path
) -> None:
    """The policy stays as it is bit for bit, also between accumulation and step."""
    update(learner, batch(build_group))
    learner.accumulate(batch(build_group, version=1))
    before = weights(learner)
    adapters = learner.publish_synthetic()
    groups = tuple(build_group(number) for number in range(3))
    views = [learner.explain(tuple(replace(group, adapter=adapter) for group in groups)) for adapter in adapters]
    for adapter, view in zip(adapters, views, strict=True):
        base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
        served = PeftModel.from_pretrained(base, adapter.path).eval()

        def seen(model: torch.nn.Module = served) -> torch.Tensor:
            samples = [(group, number) for group in groups for number in range(len(group.samples))]
            with torch.no_grad():
                return torch.cat([reference_logprobs(model, *s, tiny_config.rollout.temperature) for s in samples])

        def distance(mistake: str, view: dict[str, tuple[float, ...]] = view) -> float:
            return (torch.tensor(view[mistake]) - torch.tensor(view[FAITHFUL])).abs().mean().item()

        assert torch.allclose(torch.tensor(view[FAITHFUL]), seen(), atol=1e-3)
        with served.disable_adapter():
            assert torch.allclose(torch.tensor(view["no adapter is applied"]), seen(), atol=1e-3)
        layers = [m for n, m in served.named_modules() if n.endswith("k_proj") and hasattr(m, "scaling")]
        for layer in layers:
            layer.scaling["default"] = 0.0
        assert torch.allclose(torch.tensor(view["k_proj has no adapter"]), seen(), atol=1e-3)
        assert len(view) == 1 + 1 + 3 + len(tiny_config.lora.target_modules) + 1
        assert distance("no adapter is applied") > 0.3
        assert distance("another adapter is applied") > 0.3
        assert all(distance(mistake) > 0.02 for mistake in view if mistake != FAITHFUL)
    assert same(before, weights(learner))
    learner.step(0.5)


@pytest.mark.parametrize(("inputs", "outputs", "rank"), [(40, 30, 8), (30, 40, 8), (40, 6, 8), (6, 40, 8), (20, 20, 1)])
def test_effective_rank_is_that_of_the_full_product(inputs: int, outputs: int, rank: int) -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(shape, generator=generator) for shape in ((rank, inputs), (outputs, rank)))
    b *= 0.5 ** torch.arange(rank)
    values = torch.linalg.svdvals(b.double() @ a.double())
    shares = values / values.sum()
    expected = torch.special.entr(shares).sum().exp().item()
    assert effective_rank(a, b) == pytest.approx(expected, rel=1e-5)
    assert effective_rank(a.bfloat16(), b.bfloat16()) == pytest.approx(expected, rel=0.02)


def test_effective_rank_of_equal_directions_is_their_number() -> None:
    a, b = torch.eye(4, 9), torch.eye(7, 4)
    assert effective_rank(a, b) == pytest.approx(4.0)
    assert effective_rank(a, b @ torch.diag(torch.tensor([1.0, 1.0, 0.0, 0.0]))) == pytest.approx(2.0, rel=1e-5)
    assert effective_rank(a, 0.0 * b) == 0.0
