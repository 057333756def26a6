"""The adapter on disk, synthetic adapters, and its size, on a learner of a tiny model."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peft import PeftConfig, PeftModel
from peft.tuners.lora import LoraLayer
from transformers import AutoModelForCausalLM

from microbudget_rl.actors.messages import AdapterRef
from microbudget_rl.actors.models.adapters import CONFIG_FILE, WEIGHTS_FILE, adopt_adapter, check_adapter
from microbudget_rl.actors.protocols import FAITHFUL
from microbudget_rl.conf.schema import Config
from microbudget_rl.conf.schema.model import PROJECTIONS
from microbudget_rl.conf.settings import changed
from microbudget_rl.learner.learner import LoraLearner
from microbudget_rl.learner.model.adapter import (
    adapter_norms,
    effective_rank,
    load_model,
    modules_by_kind,
    noise,
    scaled,
    write_adapter,
)
from microbudget_rl.learner.model.projection import Projection
from tests.conftest import build_group
from tests.learner.helpers import Make, batch, own_attention, reference_logprobs, same, update, weights
from tests.learner.model.families import DELTA, GEMMA_4, Family, adapt, build
from tests.trained_runs import save_adapter

pytestmark = pytest.mark.long


def in_peft(model: Path, adapter: AdapterRef) -> PeftModel:
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    return PeftModel.from_pretrained(base, adapter.path).eval()


def assert_same_logits(model: Path, adapter: AdapterRef, learner: LoraLearner) -> None:
    """Compare a published adapter in PEFT with the learner, bit for bit."""
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        assert torch.equal(in_peft(model, adapter)(ids).logits, own_attention(learner)(ids).logits)


def test_a_run_can_start_from_an_adapter(make: Make, tiny_model: Path):
    """vLLM and PEFT read the flag of rsLoRA from the adapter's configuration."""
    first = make({"lora.rslora": True})
    adapter = update(first, batch()).adapter
    stated = json.loads((Path(adapter.path) / "adapter_config.json").read_text())
    assert stated["use_rslora"] is True
    second = make({"lora.rslora": True, "lora.start_from": adapter.path})
    check_adapter(second.config, str(tiny_model))
    assert second.version == 0
    assert same(weights(first), weights(second))
    masters = {name: value for name, value in first._optimizer.state().items() if name.endswith("master")}
    assert same(masters, {name: second._optimizer.state()[name] for name in masters})
    groups = (build_group(1),)
    ours, theirs = second.score(groups)[0], first.score(groups)[0]
    assert [(each.policy, each.base, each.reference) for each in ours] == [(s.policy, s.base, s.policy) for s in theirs]
    assert (second.inspect(groups).kl_to_base, first.inspect(groups).kl_to_base > 0) == (0, True)
    assert_same_logits(tiny_model, second.publish(), first)


@pytest.fixture(scope="module")
def foreign(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes a trained adapter as PEFT, TRL and Unsloth do."""

    def write(**lora: Any) -> Path:
        return save_adapter(tmp_path_factory.mktemp("adapters"), tiny_model, 0.1, **lora)

    return write


Lora = dict[str, Any]

INITS = ["default", "gaussian"]
ALPHA, MODULES = st.integers(1, 64), st.sets(st.sampled_from(PROJECTIONS), min_size=1)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    theirs=st.fixed_dictionaries(
        {"r": st.integers(1, 8), "lora_alpha": ALPHA, "use_rslora": st.booleans(), "target_modules": MODULES}
    ),
    ours=st.fixed_dictionaries({"alpha": ALPHA, "rslora": st.booleans(), "init": st.sampled_from(INITS)}),
    more=st.integers(0, 24),
)
def test_an_embedded_adapter_is_the_same_policy(
    theirs: Lora, ours: Lora, more: int, foreign: Callable[..., Path], tiny_config: Config, tiny_model: Path
):
    """Up to the order of sums in float32, while the adapter itself moves the logits a thousand times as far."""
    folder, rank, modules = foreign(**theirs), theirs["r"], theirs["target_modules"]
    lora = {"rank": rank + more, "start_from": str(folder), **ours}
    config = changed(tiny_config, {f"lora.{key}": value for key, value in lora.items()})
    check_adapter(config, str(tiny_model))
    learned = load_model(config, str(tiny_model)).eval()
    ids, plain = torch.arange(3, 40)[None], in_peft(tiny_model, AdapterRef(0, 0, str(folder)))
    with torch.no_grad():
        expected, found = plain(ids).logits, learned(ids).logits
        with plain.disable_adapter():
            moved = (plain(ids).logits - expected).abs().max()
    assert (found - expected).abs().max() <= 1e-3 * moved
    for name, weight in ((name, weight) for name, weight in learned.named_parameters() if weight.requires_grad):
        fresh = name.split(".")[-4] not in modules
        assert weight.any(dim=1).all() if "lora_A" in name else not weight[:, 0 if fresh else rank :].any()


def test_an_embedded_adapter_is_trained_whole_and_leaves_as_plain_peft(
    foreign: Callable[..., Path], make: Make, tiny_model: Path
):
    start = foreign(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"])
    learner = make({"lora.rank": 32, "lora.alpha": 48, "lora.start_from": str(start)})
    before = weights(learner)
    adapter = update(learner, batch()).adapter
    assert all(not torch.equal(before[name], now) for name, now in weights(learner).items() if "lora_B" in name)
    stated = PeftConfig.from_pretrained(adapter.path)
    assert (stated.r, stated.base_model_name_or_path) == (32, str(tiny_model))
    assert_same_logits(tiny_model, adapter, learner)


@pytest.mark.parametrize(
    ("path", "base", "revision"),
    [
        ("owner/name@v1", "owner/name", "a" * 40),
        ("bundled:smollm2-135m", "bundled:smollm2-135m", None),
        ("", "", None),  # a folder, which has no other name
    ],
)
def test_an_adapter_names_its_base_and_its_commit(
    path: str, base: str, revision: str | None, tiny_config: Config, tiny_model: Path, tmp_path: Path
):
    """In PEFT's fields, so that PEFT itself loads the base model as it was."""
    config = changed(tiny_config, {"model.path": path or str(tiny_model), "model.pin": "a" * 40})
    write_adapter(load_model(config, str(tiny_model)), tmp_path / "adapter", durable=False)
    stated = PeftConfig.from_pretrained(str(tmp_path / "adapter"))
    assert (stated.base_model_name_or_path, stated.revision) == (base or str(tiny_model), revision)


def test_base_model_is_loaded_straight_to_its_device(
    tiny_config: Config, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
):
    """A device without contents stands for a GPU."""
    load, devices = AutoModelForCausalLM.from_pretrained, set[str]()

    def look(*given: Any, **named: Any) -> Any:
        base, report = load(*given, **named)
        devices.update(weight.device.type for weight in base.parameters())
        return base, report

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", look)
    load_model(tiny_config, str(tiny_model), "meta")
    assert devices == {"meta"}


@pytest.mark.parametrize("init", INITS)
def test_every_init_is_a_plain_lora(make: Make, tiny_model: Path, init: str):
    """Version 0 has the base model's log-probabilities bit for bit, version 1 is a plain LoRA for PEFT."""
    learner = make({"lora.init": init})
    before, again = weights(learner), load_model(learner.config, str(tiny_model))
    assert same(before, {n: p for n, p in again.named_parameters() if n in before})
    ((scores, *_),) = learner.score((build_group(1),))
    assert scores.policy == scores.base
    adapter = update(learner, batch()).adapter
    ((scores, *_),) = learner.score((build_group(1),))
    assert scores.policy != scores.base
    assert adopt_adapter(learner.config, adapter.path, str(tiny_model))[1] is not None
    assert_same_logits(tiny_model, adapter, learner)
    assert all(isinstance(module, Projection) for module in learner.model.modules() if isinstance(module, LoraLayer))
    assert sorted(path.name for path in Path(adapter.path).iterdir()) == [CONFIG_FILE, WEIGHTS_FILE]


def test_adapter_norms(learner: LoraLearner):
    assert set(adapter_norms(learner.model).values()) == {0.0}
    update(learner, batch())
    norms = adapter_norms(learner.model)
    assert norms.keys() == set(learner.config.lora.target_modules)
    state = {name: value.double() for name, value in weights(learner).items()}
    for kind, norm in norms.items():
        products = [
            2.0 * state[name.replace("lora_A", "lora_B")] @ state[name] for name in state if f".{kind}.lora_A" in name
        ]
        assert len(products) == 2
        assert norm == pytest.approx(torch.stack([p.norm() for p in products]).norm().item(), rel=1e-5)


def test_explained_mistakes_are_those_of_peft(learner: LoraLearner, tiny_config: Config, tiny_model: Path):
    """The policy stays the same bit for bit, also between accumulation and step."""
    update(learner, batch())
    learner.accumulate(batch(version=1))
    before = weights(learner)
    adapters = learner.publish_synthetic()
    groups = tuple(build_group(number) for number in range(3))
    views = [learner.explain(tuple(replace(group, adapter=adapter) for group in groups)) for adapter in adapters]
    for adapter, view in zip(adapters, views, strict=True):
        served = in_peft(tiny_model, adapter)

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
    learner.step(1e-3)


DEEP = {"num_hidden_layers": 8, "layer_types": 2 * [*3 * ["linear_attention"], "full_attention"]}


@pytest.mark.parametrize(
    ("family", "layers", "apart"),
    [
        ("qwen3_5_text", DELTA | DEEP, "mlp.down_proj as in model.layers.3"),
        ("gemma4_text", GEMMA_4, "per_layer_model_projection"),
    ],
)
def test_each_kind_of_module_in_each_kind_of_layer_is_missed(family: str, layers: Lora, apart: str):
    """Under every synthetic adapter, a model without the modules of one kind has other log-probabilities."""
    tiny = Family("", family, "", layers)
    model = adapt(build(tiny), tiny.targets).eval()
    kinds = modules_by_kind(model)
    assert apart in kinds
    for number in (1, 2):
        with noise(model, number, 2), torch.no_grad():
            whole = model(torch.arange(3, 43)[None]).logits
            for kind, modules in kinds.items():
                with scaled(model, 0.0, modules):
                    assert (model(torch.arange(3, 43)[None]).logits - whole).abs().mean() > 0.01, kind


@pytest.mark.parametrize(("inputs", "outputs", "rank"), [(40, 30, 8), (30, 40, 8), (40, 6, 8), (6, 40, 8), (20, 20, 1)])
def test_effective_rank_is_that_of_the_full_product(inputs: int, outputs: int, rank: int):
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(shape, generator=generator) for shape in ((rank, inputs), (outputs, rank)))
    b *= 0.5 ** torch.arange(rank)
    values = torch.linalg.svdvals(b.double() @ a.double())
    expected = torch.special.entr(values / values.sum()).sum().exp().item()
    assert effective_rank(a, b) == pytest.approx(expected, rel=1e-5)
    assert effective_rank(a.bfloat16(), b.bfloat16()) == pytest.approx(expected, rel=0.02)
    assert effective_rank(a, 0.0 * b) == 0.0
