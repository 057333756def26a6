"""A tiny real model, and groups for it."""

import asyncio
import os
import random
import re
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from inspect import iscoroutinefunction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from microbudget_rl.actors.advantages import weigh
from microbudget_rl.actors.messages import AdapterRef, Group, Sample, Status
from microbudget_rl.conf import signals
from microbudget_rl.conf.schema import Config
from microbudget_rl.conf.settings import changed
from tests.fakes import make_problem, make_reward

os.environ.setdefault("DS_ACCELERATOR", "cpu")  # learners in the test process, also where there is a GPU

# Beside other work a case, and drawing it, take longer than they should.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("quick", settings.get_profile("busy"), max_examples=25)
settings.load_profile("busy")

ROOT = Path(__file__).parents[1]

HEAVY = {
    "engines": ("actors/rollout", "isa", "test_private_apis.py"),
    "runs": ("actors/runtime", "e2e", "faults", "gpu", "learner/test_distributed.py", "rewards/test_actor.py"),
}
"""Folders and files below tests/ that start Ray, vLLM or whole runs, or import vLLM. One worker runs those of a name,
one after the other.
"""

LONG = re.compile(r"^pytestmark = .*pytest\.mark\.(long|slow)\b", re.MULTILINE)
"""In a file without quick tests, such as all that build a model."""

SLOW_IMPORTS = {"deepspeed", "peft", "transformers", "vllm"}
"""Packages that take seconds to import; no quick test needs one."""

REAL = {"pool", "server", "stock", "sweeping", "tiny_model", "tool"}
"""Fixtures with a model, processes or a whole command. A test that asks for one is not quick, as one that is marked
`slow` or `long`.
"""

started: list[str] = []
"""Processes of Python that the current test has started. Others, such as git, are short."""

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CORPUS = [
    "What is 3 + 4? Put the final answer within \\boxed{}.",
    "3 + 4 = \\boxed{7}",
    "<think>\n12 + 7 = 19\n</think>\n\\boxed{19}",
    "Reason step by step: 20 - 8 = 12, so the answer is 12.",
    "You are a helpful assistant. user system assistant",
]
VOCABULARY = 512


class Exit:
    """Ends the process with pytest's verdict as soon as it is told. What native libraries do while an interpreter goes
    down is none of it: after a whole suite had passed, a thread that was started then crashed the process.
    """

    code = 0

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, exitstatus: int) -> None:
        self.code = exitstatus

    @pytest.hookimpl(trylast=True)
    def pytest_unconfigure(self) -> None:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(self.code)


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("quick"):
        settings.load_profile("quick")
    if not hasattr(config, "workerinput"):  # a worker of pytest-xdist has to report its end
        config.pluginmanager.register(Exit())
    config.option.maxworkerrestart = "0"  # pytest-xdist 3.8 waits for ever after it has replaced a crashed worker


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="only tests without an engine, Ray, processes or a model")


def scope_of(nodeid: str) -> str:
    """Return the name of the tests that stay with this one."""
    file = nodeid.partition("::")[0]
    return next((scope for scope, places in HEAVY.items() if file.removeprefix("tests/").startswith(places)), file)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Files without quick tests are not even imported for the others."""
    if not config.getoption("quick") or not collection_path.is_relative_to(ROOT / "tests"):
        return None
    if scope_of(str(collection_path.relative_to(ROOT))) in HEAVY:
        return True
    return True if collection_path.suffix == ".py" and LONG.search(collection_path.read_text()) else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: scope_of(item.nodeid) not in HEAVY)
    if config.getoption("quick"):
        assert not (slow := SLOW_IMPORTS & sys.modules.keys()), f"mark what imports {slow} by pytestmark as long"
        sys.addaudithook(note_process)
        left_out = [item for item in items if not is_quick(item)]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> None:
    """Run a test that is a coroutine in an event loop of its own."""
    if iscoroutinefunction(test := pyfuncitem.obj):
        pyfuncitem.obj = lambda **given: asyncio.run(test(**given))


def is_quick(item: pytest.Item) -> bool:
    marked = item.get_closest_marker("slow") or item.get_closest_marker("long")
    return not marked and REAL.isdisjoint(getattr(item, "fixturenames", ()))


def note_process(event: str, arguments: tuple[Any, ...]) -> None:
    python = "python" in str(arguments[:1]).rpartition("/")[2]
    if event == "os.fork" or (event in ("subprocess.Popen", "os.posix_spawn") and python):
        started.append(str(arguments[:2]))


@pytest.fixture(autouse=True)
def no_process(request: pytest.FixtureRequest) -> Iterator[None]:
    """A quick test that starts a process of Python fails, however it came to start it."""
    started.clear()
    yield
    if request.config.getoption("quick"):
        assert not started, f"mark the test or its module long: {started}"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep the tests of a scope in one worker. Marks of groups, which pytest-xdist has for it, are lost in pytest-xdist
    3.8 under pytest 9.2.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Scheduler(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return scope_of(nodeid)

    return Scheduler(config, log)


@pytest.fixture(scope="session", autouse=True)
def away_from_the_checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The working directory is an empty one, so that no test sees the checkout's `runs/`. Processes that a test starts
    find the project from there.
    """
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(paths))
        patch.chdir(tmp_path_factory.mktemp("session"))
        yield


@pytest.fixture(autouse=True)
def deepspeed_without_a_group() -> Iterator[None]:
    """DeepSpeed keeps a process group, which an engine in the test's process destroys when it is closed."""
    yield
    if groups := sys.modules.get("deepspeed.utils.groups"):
        groups._WORLD_GROUP = None  # type: ignore[attr-defined]


@pytest.fixture(autouse=True)
def own_signal_handlers() -> Iterator[None]:
    """A command that ran in this process no longer handles its signals, and none ends this process."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a shell that a test starts could not trap an ignored one
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signals, "leave", lambda code, *_, **__: sys.exit(code))
        yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def own_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees what another one has left, either. Nothing is flushed to a disk that others keep busy: no test is
    about power cuts.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny-model"))


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Any:
    return make_tokenizer()


def write_tiny_model(folder: Path) -> Path:
    """Write a folder in Hugging Face format: a random Llama of two layers (bf16, tied head) with a real tokenizer."""
    return save_llama(
        folder, make_tokenizer(), vocab_size=VOCABULARY, hidden_size=128, num_attention_heads=4, initializer_range=0.1
    )


def make_tokenizer() -> Any:
    """Train a real tokenizer, which has a token for every byte and a ChatML template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def save_llama(folder: Path, tokenizer: Any, hidden_size: int, **sizes: Any) -> Path:
    """Write a random Llama of two layers (bf16, tied head) and its tokenizer. Two heads share one for keys."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=hidden_size,
        intermediate_size=2 * hidden_size,
        num_hidden_layers=2,
        num_key_value_heads=sizes["num_attention_heads"] // 2,
        head_dim=32,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **sizes,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)  # type: ignore[arg-type]
    return folder


@pytest.fixture(scope="session")
def tiny_config(tiny_model: Path) -> Config:
    """A configuration for `tiny_model`: rank 4 in float32, small micro-batches."""
    return changed(
        Config(),
        {
            "model.path": str(tiny_model),
            "model.dtype": "float32",
            "lora.rank": 4,
            "lora.alpha": 8,
            "learner.learning_rate": 1e-2,
            "learner.tokens_per_microbatch": 256,
            "learner.logprob_chunk": 16,
        },
    )


def build_group(
    index: int,
    rewards: tuple[float | None, ...] = (1.0, 0.0, 0.0, 1.0),
    adapter: AdapterRef | None = None,
    prompt_tokens: int = 12,
    response_tokens: tuple[int, int] = (1, 9),
) -> Group:
    """Return a verified group of random tokens: one sample for each reward, None for a sample that timed out."""
    rng = random.Random(index)

    def ids(count: int) -> tuple[int, ...]:
        return tuple(rng.randrange(3, 300) for _ in range(count))

    lengths = [rng.randint(*response_tokens) for _ in rewards]
    group = Group(
        index=index,
        problem=replace(make_problem(index), prompt_ids=ids(prompt_tokens)),
        adapter=adapter or AdapterRef(0, 0, "nowhere"),
        samples=tuple(
            Sample(ids(n), tuple(rng.uniform(-8.0, -4.0) for _ in range(n)), "text", "stop") for n in lengths
        ),
        rewards=tuple(make_reward(total or 0.0, Status.TIMEOUT if total is None else None) for total in rewards),
    )
    return weighed(group, Config())


def weighed(group: Group, config: Config) -> Group:
    return replace(group, advantages=weigh(group, config.algorithm, config.reward.accuracy))
