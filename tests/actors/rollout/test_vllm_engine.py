"""Generation with a real vLLM engine and a tiny random model."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from actors.adapter_check.at_start import CheckAtStart
from actors.adapter_check.prompts import CheckPrompts
from actors.errors import ActorDied, Halted
from actors.messages import AdapterRef, Group, Problem, Sample, Sampling
from actors.models.files import shape_from_config
from actors.models.sizes import kv_bytes_per_token
from actors.rollout.actor import RemoteEngine
from actors.rollout.vllm_engine import CPU_BLOCK, RolloutEngine, card_settings
from actors.runtime.placement import Share
from conf.schema import Config
from conf.settings import changed
from learner.learner import LoraLearner

pytestmark = pytest.mark.skipif(torch.version.cuda is not None, reason="of vLLM's CPU build; tests/gpu has the other's")

CORES = tuple(sorted(os.sched_getaffinity(0)))[:2]
PROMPT = (5, 6, 7, 8, 9, 10)
STOP = "<|endoftext|>"
"""A token that is not the one the model itself ends with; its id is 0."""
ENDED: list[RolloutEngine] = []
"""Closed engines, kept to the end: ZeroMQ may wait for ever when a context is collected before its sockets."""
PROBLEM = Problem("p0", "a prompt", PROMPT, "1")


def make_config(deterministic: bool = False) -> Config:
    return changed(
        Config(),
        {
            "run.deterministic": deterministic,
            "model.stop_tokens": [STOP],
            "lora.rank": 8,
            "rollout.max_prompt_tokens": 64,
            "rollout.max_response_tokens": 192,
            "rollout.max_concurrent_samples": 16,
            "rollout.kv_cache_gib": 1,
        },
    )


class Rig:
    """An engine and the loop it lives on."""

    def __init__(self, model: Path, config: Config | None = None) -> None:
        self.loop = asyncio.new_event_loop()
        others = set(psutil.Process().children())
        self.engine: RolloutEngine = self.run(self._start(model, config or make_config()))
        new = set(psutil.Process().children()) - others
        [self.process] = [child for child in new if "resource_tracker" not in " ".join(child.cmdline())]

    async def _start(self, model: Path, config: Config) -> RolloutEngine:
        return RolloutEngine(config, str(model), Share(cores=CORES))

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    def generate(self, adapter: AdapterRef | None, **sampling: Any) -> Group:
        return self.run(self.engine.generate(0, PROBLEM, adapter, make_sampling(**sampling)))


def make_sampling(
    samples: int = 2, max_tokens: int = 12, temperature: float = 1.0, top_p: float = 1.0, seed: int = 1
) -> Sampling:
    return Sampling(samples, max_tokens, temperature, top_p, seed)


@contextmanager
def started(model: Path, config: Config) -> Iterator[Rig]:
    environment = dict(os.environ)
    rig = Rig(model, config)
    yield rig
    rig.run(rig.engine.close())
    rig.loop.close()
    ENDED.append(rig.engine)
    os.environ.clear()
    os.environ.update(environment)


@pytest.fixture(scope="module")
def rig(tiny_model: Path) -> Iterator[Rig]:
    with started(tiny_model, make_config()) as rig:
        yield rig


@pytest.fixture(scope="module")
def adapters(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[AdapterRef]:
    """Versions 1 to 3, all modules, far apart from the base model and from each other."""
    references = []
    for version in (1, 2, 3):
        torch.manual_seed(version)
        base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16)
        lora = LoraConfig(r=8, lora_alpha=8, target_modules=make_config().lora.target_modules)
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


def test_samples_carry_tokens_logprobs_and_finish_reason(rig: Rig, tiny_model: Path) -> None:
    group = rig.generate(None, samples=3)
    assert (group.index, group.adapter, len(group.samples)) == (0, None, 3)
    for sample in group.samples:
        assert len(sample.logprobs) == len(sample.token_ids) <= 12
        assert sample.truncated == (len(sample.token_ids) == 12 and sample.finish_reason == "length")
        assert disagreement(sample, tiny_model, None) < 0.05


@pytest.mark.skipif("TEST_ISA" not in os.environ, reason="test.sh sets it for isa=avx2 and isa=avx512")
def test_engine_process_has_the_instructions_that_are_left(rig: Rig) -> None:
    libraries = {Path(file.path).name for child in psutil.Process().children() for file in child.memory_maps()}
    [library] = [name for name in libraries if name.startswith("_C") and name.endswith(".abi3.so")]
    assert library == f"_C_{os.environ['TEST_ISA'].upper()}.abi3.so"


def test_engine_listens_on_no_port(rig: Rig) -> None:
    engines = [child for child in psutil.Process().children(recursive=True) if child.name().startswith("VLLM")]
    assert engines
    assert not [each for child in engines for each in child.net_connections("inet") if each.status == "LISTEN"]


def test_cache_is_as_large_as_was_asked_for(rig: Rig, tiny_model: Path) -> None:
    asked = make_config().rollout.kv_cache_gib * 2**30
    block = CPU_BLOCK * kv_bytes_per_token(shape_from_config(str(tiny_model)), make_config().model.dtype)
    assert 0.99 * asked < rig.run(rig.engine.cache_blocks()) * block <= asked


def test_successor_on_a_card_is_given_the_cache_of_the_first() -> None:
    """It starts beside a learner at work, in whose presence free memory says little."""

    starts = []

    class Actor:
        name = "rollout-0"

        def start(self, cache_blocks: int | None) -> None:
            starts.append(cache_blocks)

        async def call(self, method: str) -> int:
            return {"cache_blocks": 5000}[method]

    engine = RemoteEngine(Actor(), 8)  # type: ignore[arg-type]
    asyncio.run(engine.revive())
    asyncio.run(engine.revive())
    assert starts == [None, 5000]
    share = Share(gpus=0.45, memory=0.45)
    assert card_settings(share, None) == {"gpu_memory_utilization": 0.45}
    given = card_settings(share, 5000)
    assert given["num_gpu_blocks_override"] == 5000
    assert given["kv_cache_memory_bytes"]  # else vLLM measures
    assert given["gpu_memory_utilization"] < 0.05


@pytest.mark.parametrize("temperature", [0.6, 1.0])
def test_logprobs_are_those_of_the_distribution_sampled_under_the_adapter(
    rig: Rig, adapters: list[AdapterRef], tiny_model: Path, temperature: float
) -> None:
    adapter = AdapterRef(10, int(temperature * 10), adapters[0].path)
    rig.run(rig.engine.load(adapter))
    sample = rig.generate(adapter, temperature=temperature).samples[0]
    assert disagreement(sample, tiny_model, adapter, temperature) < 0.08
    assert disagreement(sample, tiny_model, None, temperature) > 0.3
    rig.run(rig.engine.retire(adapter))


def test_seed_decides_the_sample(rig: Rig) -> None:
    first, second, other = (rig.generate(None, samples=1, seed=seed).samples[0] for seed in (3, 3, 4))
    assert first.token_ids == second.token_ids != other.token_ids


@pytest.mark.slow
def test_answer_of_a_deterministic_engine_depends_on_its_request_alone(
    adapters: list[AdapterRef], tiny_model: Path
) -> None:
    """Not on what else is asked, before it or after it, under which adapter, or how much of the prompt is cached."""
    long = Problem("long", "", (*PROMPT, *range(11, 60)), "1")
    asked: list[tuple[Problem, AdapterRef | None, Sampling]] = [
        (PROBLEM, adapters[0], make_sampling(4, 48, seed=7)),
        (PROBLEM, adapters[1], make_sampling(3, 32, seed=7)),
        (PROBLEM, None, make_sampling(5, 64, seed=8)),
        (long, adapters[0], make_sampling(2, 24, seed=9)),
        (long, None, make_sampling(1, 40, seed=10)),
    ]
    with started(tiny_model, make_config(deterministic=True)) as rig:

        async def together(order: list[int]) -> dict[int, tuple[Sample, ...]]:
            groups = await asyncio.gather(*(rig.engine.generate(number, *asked[number]) for number in order))
            return {group.index: group.samples for group in groups}

        for adapter in adapters[:2]:
            rig.run(rig.engine.load(adapter))
        alone: dict[int, tuple[Sample, ...]] = {}
        for number in range(len(asked)):
            alone |= rig.run(together([number]))
        assert len({sample.token_ids.tobytes() for samples in alone.values() for sample in samples}) > len(asked)
        for order in ([0, 1, 2, 3, 4], [4, 2, 0, 3, 1], [3, 0]):
            assert rig.run(together(order)) == {number: alone[number] for number in order}


def test_stop_tokens_end_a_response(rig: Rig) -> None:
    """One sample in ten ends so. Which ones do depends on how the CPU rounds."""
    for seed in range(16):
        samples = rig.generate(None, samples=16, max_tokens=160, seed=seed).samples
        if stopped := [sample for sample in samples if sample.token_ids[-1] == 0]:
            break
    assert stopped
    assert all(sample.finish_reason == "stop" and STOP not in sample.text for sample in stopped)
    assert not any(0 in sample.token_ids[:-1] for sample in samples)


def test_swap_in_flight_keeps_every_request_on_its_version(
    rig: Rig, adapters: list[AdapterRef], tiny_model: Path
) -> None:
    """Requests of version 1 run on while 2 is loaded and serves; 3 waits until the last of 1 has ended, which then is
    served no more.
    """
    one, two, three = adapters
    engine = rig.engine

    async def scenario() -> tuple[Group, Group, list[str]]:
        order: list[str] = []

        async def noted(name: str, work: Coroutine[Any, Any, Any]) -> Any:
            result = await work
            order.append(name)
            return result

        await engine.load(one)
        old = asyncio.create_task(noted("1 ended", engine.generate(1, PROBLEM, one, make_sampling(4, 160))))
        await asyncio.sleep(0.1)
        await noted("2 loaded", engine.load(two))
        await engine.retire(one)
        third = asyncio.create_task(noted("3 loaded", engine.load(three)))
        new = await noted("2 ended", engine.generate(2, PROBLEM, two, make_sampling(2, 4)))
        await third
        await engine.retire(two)
        await engine.retire(three)
        return await old, new, order

    old, new, order = rig.run(scenario())
    assert order == ["2 loaded", "2 ended", "1 ended", "3 loaded"]
    for group, own, other in ((old, one, two), (new, two, one)):
        assert group.version == own.version
        assert disagreement(group.samples[0], tiny_model, own) < 0.1
        assert disagreement(group.samples[0], tiny_model, other) > 0.3
    with pytest.raises(ValueError, match="policy-v1-r0 is not served"):
        rig.generate(one)


class Spoiled:
    """The rig's engine as one that gets something wrong about synthetic adapters; each is of another number."""

    def __init__(self, engine: RolloutEngine, folder: Path, number: int, fault: str) -> None:
        self._engine = engine
        self._folder = folder
        self._number = number
        self._fault = fault

    async def at_start(self, work: Callable[[str, Any], Coroutine[Any, Any, None]]) -> None:
        await work("rollout-0", self)

    async def load(self, adapter: AdapterRef) -> None:
        await self._engine.load(self._stand_in(adapter))

    async def retire(self, adapter: AdapterRef) -> None:
        await self._engine.retire(self._stand_in(adapter))

    async def probe(self, index: int, problem: Problem, adapter: AdapterRef, sampling: Sampling) -> tuple[Group, ...]:
        served = None if self._fault == "not loaded" else self._stand_in(adapter)
        return (replace(await self._engine.generate(index, problem, served, sampling), adapter=adapter),)

    def _stand_in(self, adapter: AdapterRef) -> AdapterRef:
        folder = self._folder / f"{adapter.name}-{self._number}"
        if not folder.exists():
            source = f"synthetic-{3 + adapter.version}" if self._fault == "crossed" else adapter.name
            shutil.copytree(Path(adapter.path).with_name(source), folder)
            settings = json.loads((folder / "adapter_config.json").read_text())
            settings["lora_alpha"] *= 2 if self._fault == "alpha" else 1
            (folder / "adapter_config.json").write_text(json.dumps(settings))
            weights = load_file(folder / "adapter_model.safetensors")
            kept = {name: weight for name, weight in weights.items() if self._fault not in name}
            save_file(kept, folder / "adapter_model.safetensors")
        return AdapterRef(adapter.version - 10 * self._number, 0, str(folder))


SPOILED = {
    "nothing": "",
    "not loaded": "no adapter is applied",
    "alpha": "alpha is doubled",
    "crossed": "another adapter is applied",
    **{kind: f"{kind} has no adapter" for kind in make_config().lora.target_modules},
}


@pytest.fixture(scope="module")
def learner(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> LoraLearner:
    config = make_config()
    config = changed(config, {"learner.logprob_chunk": 16})
    return LoraLearner(config, str(tiny_model), tmp_path_factory.mktemp("adapters"))


@pytest.mark.parametrize("fault", SPOILED)
def test_startup_check_names_the_fault(rig: Rig, learner: LoraLearner, tmp_path: Path, fault: str) -> None:
    class Local:
        async def publish_synthetic(self) -> tuple[AdapterRef, ...]:
            return learner.publish_synthetic()

        async def explain(self, groups: tuple[Group, ...]) -> Any:
            return learner.explain(groups)

    problems = tuple(Problem(f"p{n}", "", tuple(range(5 + n, 25 + n)), "1") for n in range(4))
    engine: Any = Spoiled(rig.engine, tmp_path, list(SPOILED).index(fault), fault)
    local: Any = Local()
    config = make_config()
    check = CheckAtStart(engine, local, CheckPrompts(config, problems))
    rig.run(check.begin())
    if fault == "nothing":
        rig.run(check.check())
    else:
        with pytest.raises(Halted, match=SPOILED[fault]):
            rig.run(check.check())


def test_more_prompt_tokens_than_one_step_takes_are_served_with_seeds(rig: Rig) -> None:
    """vLLM 0.32 on the CPU crashes when a seeded request's prompt is computed in chunks."""

    async def many() -> list[Group]:
        problems = [Problem(str(n), "", tuple((n + k) % 90 + 5 for k in range(60)), "") for n in range(48)]
        return await asyncio.gather(
            *(rig.engine.generate(n, p, None, make_sampling(1, 2)) for n, p in enumerate(problems))
        )

    assert len(rig.run(many())) == 48


def test_engine_processes_die_with_their_owner(tiny_model: Path) -> None:
    """kill -9 of the process that owns an engine leaves no vLLM process behind."""
    code = (
        "import asyncio, time\n"
        "from tests.actors.rollout.test_vllm_engine import Rig\nfrom pathlib import Path\n"
        "if __name__ == '__main__':\n"
        f"    Rig(Path({str(tiny_model)!r})); print('up', flush=True); time.sleep(600)\n"
    )
    script = tiny_model.parent / "owner.py"
    script.write_text(code)
    owner = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    assert any(line.startswith("up") for line in owner.stdout)
    children = psutil.Process(owner.pid).children(recursive=True)
    assert any(process.name().startswith("VLLM::") for process in children)
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    _, alive = psutil.wait_procs(children, timeout=120)
    assert [process.name() for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []


def test_adapter_that_is_not_loaded_takes_no_slot(rig: Rig, adapters: list[AdapterRef]) -> None:
    """One that cannot be, and one that is given up meanwhile."""

    async def give_up(adapter: AdapterRef) -> None:
        task = asyncio.create_task(rig.engine.load(adapter))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})

    for version in range(30, 34):
        with pytest.raises(Exception, match="No adapter found for /nowhere"):
            rig.run(rig.engine.load(AdapterRef(version, 0, "/nowhere")))
        rig.run(give_up(AdapterRef(20 + version, 0, adapters[0].path)))
    good = [AdapterRef(version, 0, adapters[0].path) for version in (40, 41)]
    for adapter in good:
        rig.run(rig.engine.load(adapter))
        assert len(rig.generate(adapter).samples) == 2
    assert len(rig.run(rig.engine._llm.list_loras())) == 2
    for adapter in good:
        rig.run(rig.engine.retire(adapter))


def test_question_that_the_engine_process_dies_over_is_answered_by_its_death(
    rig: Rig, adapters: list[AdapterRef]
) -> None:
    """vLLM itself would let it wait for ever. This is the end of the engine that the tests above share."""

    async def ask() -> None:
        rig.process.suspend()
        question = asyncio.create_task(rig.engine.load(AdapterRef(99, 0, adapters[0].path)))
        await asyncio.wait({question}, timeout=0.5)
        assert not question.done()
        rig.process.kill()
        await asyncio.wait({question}, timeout=240)
        question.result()

    with pytest.raises(ActorDied, match=r"engine process: it was killed by signal 9"):
        rig.run(ask())
