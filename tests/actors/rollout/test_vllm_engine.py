"""Generation with a real vLLM engine and a tiny random model."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from microbudget_rl.actors.adapter_check.at_start import CheckAtStart
from microbudget_rl.actors.adapter_check.prompts import CheckPrompts
from microbudget_rl.actors.errors import Halted
from microbudget_rl.actors.messages import AdapterRef, Group, Problem, Request, Sample, Sampling
from microbudget_rl.actors.models.files import shape_from_config
from microbudget_rl.actors.models.sizes import cache_bytes
from microbudget_rl.actors.rollout import vllm_plugin
from microbudget_rl.actors.rollout.vllm_engine import RolloutEngine
from microbudget_rl.actors.rollout.vllm_settings import CPU_BLOCK
from microbudget_rl.actors.runtime.placement import Share
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.schema import Config
from microbudget_rl.conf.settings import changed
from microbudget_rl.learner.learner import LoraLearner

pytestmark = pytest.mark.skipif(torch.version.cuda is not None, reason="of vLLM's CPU build; tests/gpu has the other's")

CORES = tuple(sorted(os.sched_getaffinity(0)))[:2]
PROMPT = (5, 6, 7, 8, 9, 10)
STOP = "<|endoftext|>"
"""A token that is not the model's own end token; its id is 0."""
PROBLEM = Problem("p0", "a prompt", PROMPT, "1")


CONFIG = changed(
    Config(),
    {
        "model.stop_tokens": [STOP],
        "lora.rank": 8,
        "rollout.max_prompt_tokens": 64,
        "rollout.max_response_tokens": 192,
        "rollout.max_concurrent_samples": 16,
        "rollout.kv_cache_gib": 1,
    },
)


class Rig:
    """An engine, of which a process has one at a time, and the loop that asks it."""

    def __init__(self, model: Path) -> None:
        self.loop = asyncio.new_event_loop()
        self.engine = RolloutEngine(CONFIG, str(model), Share(cores=CORES))

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    def generate(self, adapter: AdapterRef | None, **sampling: Any) -> Group:
        return self.run(self.engine.generate(Request(0, PROBLEM, adapter, make_sampling(**sampling))))

    def load(self, *adapters: AdapterRef) -> None:
        for adapter in adapters:
            self.run(self.engine.load(adapter))

    def retire(self, *adapters: AdapterRef) -> None:
        for adapter in adapters:
            self.run(self.engine.retire(adapter))


def make_sampling(
    samples: int = 2, max_tokens: int = 12, temperature: float = 1.0, top_p: float = 1.0, seed: int = 1
) -> Sampling:
    return Sampling(samples, max_tokens, temperature, top_p, seed)


@pytest.fixture(scope="module")
def rig(tiny_model: Path) -> Iterator[Rig]:
    environment = dict(os.environ)
    rig = Rig(tiny_model)
    yield rig
    rig.run(rig.engine.close())
    rig.loop.close()
    os.environ.clear()
    os.environ.update(environment)


@pytest.fixture(scope="module")
def adapters(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[AdapterRef]:
    """Versions 1 to 3, all modules, far apart from the base model and from each other."""
    references = []
    for version in (1, 2, 3):
        torch.manual_seed(version)
        base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16)
        lora = LoraConfig(r=8, lora_alpha=8, target_modules=CONFIG.lora.target_modules)
        model = get_peft_model(base, lora, autocast_adapter_dtype=False)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.3)
        path = tmp_path_factory.mktemp(f"v{version}")
        model.save_pretrained(path)
        references.append(AdapterRef(version, 0, str(path)))
    return references


def disagreement(sample: Sample, model: Path, adapter: AdapterRef | None, temperature: float = 1.0) -> float:
    """Mean |Δ log p| between the engine's log-probabilities and those of transformers and PEFT."""
    reference = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    if adapter:
        reference = PeftModel.from_pretrained(reference, adapter.path)
    ids = torch.tensor([PROMPT + tuple(sample.token_ids)])
    with torch.no_grad():
        logits = reference(ids).logits[0, len(PROMPT) - 1 : -1] / temperature
    expected = logits.log_softmax(-1).gather(1, ids[0, len(PROMPT) :, None]).squeeze(1)
    return (expected - torch.tensor(sample.logprobs)).abs().mean().item()


def test_engine_without_the_projects_plugin_is_refused(rig: Rig, tiny_model: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(vllm_plugin, "registered", False)  # vLLM only logs what it cannot import
    with pytest.raises(BadInput, match=r"launch/setup\.sh"):
        Rig(tiny_model)


def test_samples_carry_logprobs_of_their_tokens(rig: Rig, tiny_model: Path):
    group = rig.generate(None, samples=3)
    assert (group.index, group.adapter, len(group.samples)) == (0, None, 3)
    for sample in group.samples:
        assert len(sample.logprobs) == len(sample.token_ids) <= 12
        assert sample.truncated == (len(sample.token_ids) == 12 and sample.finish_reason == "length")
        assert disagreement(sample, tiny_model, None) < 0.05


@pytest.mark.skipif("TEST_ISA" not in os.environ, reason="test.sh sets it for isa=avx2 and isa=avx512")
def test_engine_uses_the_instructions_left(rig: Rig):
    libraries = {Path(file.path).name for file in psutil.Process().memory_maps()}
    [library] = [name for name in libraries if name.startswith("_C") and name.endswith(".abi3.so")]
    assert library == f"_C_{os.environ['TEST_ISA'].upper()}.abi3.so"


def test_heartbeat_is_answered_during_generation(rig: Rig):
    async def beats() -> int:
        work, count = asyncio.create_task(rig.engine.generate(Request(0, PROBLEM, None, make_sampling(8, 160)))), 0
        while not work.done():
            await asyncio.wait_for(rig.engine.alive(), 30.0)
            count += 1
        await work
        return count

    assert rig.run(beats()) > 10


def test_cache_has_the_size_set(rig: Rig, tiny_model: Path):
    asked = CONFIG.rollout.kv_cache_gib * 2**30
    block = cache_bytes(shape_from_config(str(tiny_model)), CONFIG.model.dtype, CPU_BLOCK)
    assert 0.99 * asked < rig.run(rig.engine.cache_blocks()) * block <= asked


def test_logprobs_follow_temperature(rig: Rig, tiny_model: Path):
    sample = rig.generate(None, temperature=0.6).samples[0]
    assert disagreement(sample, tiny_model, None, 0.6) < 0.05 < disagreement(sample, tiny_model, None)


def test_seed_decides_the_sample(rig: Rig):
    first, second, other = (rig.generate(None, samples=1, seed=seed).samples[0] for seed in (3, 3, 4))
    assert first.token_ids == second.token_ids != other.token_ids


def test_stop_tokens_end_responses(rig: Rig):
    """One sample in ten ends so; it depends on how the CPU rounds which ones do."""
    for seed in range(16):
        samples = rig.generate(None, samples=16, max_tokens=160, seed=seed).samples
        if stopped := [sample for sample in samples if sample.token_ids[-1] == 0]:
            break
    assert stopped
    assert all(sample.finish_reason == "stop" and STOP not in sample.text for sample in stopped)
    assert not any(0 in sample.token_ids[:-1] for sample in samples)


def test_requests_keep_their_version(rig: Rig, adapters: list[AdapterRef], tiny_model: Path):
    """Requests of version 1 run on while 2 is loaded and serves; 3 waits until the last of 1 has ended, which then is
    served no more.
    """
    one, two, three = adapters
    engine = rig.engine

    order: list[str] = []

    async def noted(name: str, work: Coroutine[Any, Any, Any]) -> Any:
        result = await work
        order.append(name)
        return result

    async def scenario() -> tuple[Group, Group]:
        await engine.load(one)
        old = asyncio.create_task(noted("1 ended", engine.generate(Request(1, PROBLEM, one, make_sampling(4, 160)))))
        await asyncio.sleep(0.1)
        await noted("2 loaded", engine.load(two))
        await engine.retire(one)
        third = asyncio.create_task(noted("3 loaded", engine.load(three)))
        new = await noted("2 ended", engine.generate(Request(2, PROBLEM, two, make_sampling(2, 4))))
        await third
        await engine.retire(two)
        await engine.retire(three)
        return await old, new

    old, new = rig.run(scenario())
    assert order == ["2 loaded", "2 ended", "1 ended", "3 loaded"]
    for group, own, other in ((old, one, two), (new, two, one)):
        assert group.version == own.version
        assert disagreement(group.samples[0], tiny_model, own) < 0.1
        assert disagreement(group.samples[0], tiny_model, other) > 0.3
    with pytest.raises(ValueError, match="policy-v1-r0 is not served"):
        rig.generate(one)


@dataclass
class Spoiled:
    """The rig's engine, with a mistake about synthetic adapters. number: of the mistake, for names of its own."""

    _engine: RolloutEngine
    _folder: Path
    _number: int
    _fault: str

    async def at_start(self, work: Callable[[str, Any], Coroutine[Any, Any, None]]) -> None:
        await work("rollout-0", self)

    async def load(self, adapter: AdapterRef) -> None:
        await self._engine.load(self._stand_in(adapter))

    async def retire(self, adapter: AdapterRef) -> None:
        await self._engine.retire(self._stand_in(adapter))

    async def generate_on_each(self, request: Request) -> tuple[Group, ...]:
        assert request.adapter
        lost = self._fault == "not loaded" or (self._fault == "long" and len(request.problem.prompt_ids) > 20)
        served = replace(request, adapter=None if lost else self._stand_in(request.adapter))
        return (replace(await self._engine.generate(served), adapter=request.adapter),)

    def _stand_in(self, adapter: AdapterRef) -> AdapterRef:
        folder = self._folder / f"{adapter.name}-{self._number}"
        if not folder.exists():
            source = f"synthetic-{3 - adapter.version}" if self._fault == "crossed" else adapter.name
            shutil.copytree(Path(adapter.path).with_name(source), folder)
            settings = json.loads((folder / "adapter_config.json").read_text())
            settings["lora_alpha"] *= 2 if self._fault == "alpha" else 1
            (folder / "adapter_config.json").write_text(json.dumps(settings))
            weights = load_file(folder / "adapter_model.safetensors")
            kept = {name: weight for name, weight in weights.items() if self._fault not in name}
            save_file(kept, folder / "adapter_model.safetensors")
        return AdapterRef(adapter.version + 10 * self._number, 0, str(folder), synthetic=True)


SPOILED = {
    "nothing": "",
    "not loaded": "no adapter is applied",
    "alpha": "alpha is doubled",
    "crossed": "another adapter is applied",
    "long": "a prompt of 240 tokens",
    **{kind: f"{kind} has no adapter" for kind in CONFIG.lora.target_modules},
}


@pytest.fixture(scope="module")
def learner(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> "LocalLearner":
    config = changed(CONFIG, {"learner.logprob_chunk": 16})
    return LocalLearner(config, str(tiny_model), tmp_path_factory.mktemp("adapters"))


class LocalLearner(LoraLearner):
    async def publish_synthetic(self) -> tuple[AdapterRef, ...]:  # type: ignore[override]
        return super().publish_synthetic()

    async def explain(  # type: ignore[override]
        self, groups: tuple[Group, ...], mistakes: bool = True
    ) -> dict[str, tuple[float, ...]]:
        return super().explain(groups, mistakes)


@pytest.mark.parametrize("fault", SPOILED)
def test_startup_check_names_the_mistake(rig: Rig, learner: Any, tmp_path: Path, fault: str):
    problems = tuple(Problem(f"p{n}", "", tuple(range(5 + n, 25 + n)), "1") for n in range(4))
    engine: Any = Spoiled(rig.engine, tmp_path, list(SPOILED).index(fault), fault)
    check = CheckAtStart(engine, learner, CheckPrompts(CONFIG, problems))
    rig.run(check.begin())
    if fault == "nothing":
        rig.run(check.check())
    else:
        with pytest.raises(Halted, match=SPOILED[fault]):
            rig.run(check.check())


def test_seeded_prompts_may_exceed_one_step(rig: Rig):
    """vLLM 0.32 on the CPU crashes when a seeded request's prompt is computed in chunks."""

    async def many() -> list[Group]:
        problems = [Problem(str(n), "", tuple((n + k) % 90 + 5 for k in range(60)), "") for n in range(48)]
        return await asyncio.gather(
            *(rig.engine.generate(Request(n, p, None, make_sampling(1, 2))) for n, p in enumerate(problems))
        )

    assert len(rig.run(many())) == 48


def test_killed_engine_leaves_nothing_behind(tiny_model: Path):
    """An engine has no process of its own and no port."""
    script = tiny_model.parent / "owner.py"
    script.write_text(
        "import time\n"
        "from pathlib import Path\n"
        "from tests.actors.rollout.test_vllm_engine import Rig\n"
        f"Rig(Path({str(tiny_model)!r})).generate(None); print('up', flush=True); time.sleep(600)\n"
    )
    owner = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    assert any(line.startswith("up") for line in owner.stdout)
    process = psutil.Process(owner.pid)
    children = process.children(recursive=True)
    listening = [each for each in process.net_connections("inet") if each.status == "LISTEN"]
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    assert not listening
    _, alive = psutil.wait_procs(children, timeout=60)
    assert [child.name() for child in alive if child.status() != psutil.STATUS_ZOMBIE] == []


def test_failed_load_takes_no_slot(rig: Rig, adapters: list[AdapterRef]):
    """One that cannot be, and one that is given up meanwhile."""

    async def give_up(adapter: AdapterRef) -> None:
        task = asyncio.create_task(rig.engine.load(adapter))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})

    for version in range(30, 34):
        with pytest.raises(Exception, match="No adapter found for /nowhere"):
            rig.load(AdapterRef(version, 0, "/nowhere"))
        rig.run(give_up(AdapterRef(20 + version, 0, adapters[0].path)))
    good = [AdapterRef(version, 0, adapters[0].path) for version in (40, 41)]
    rig.load(*good)
    assert [len(rig.generate(adapter).samples) for adapter in good] == [2, 2]
    assert len(rig.run(rig.engine._thread.call(lambda engine: engine.list_loras()))) == 2
    rig.retire(*good)
