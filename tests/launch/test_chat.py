import asyncio
import io
import signal
from collections.abc import Callable

import pytest

from actors.messages import AdapterRef, Problem, Sampling, Verdict
from conf.command import PlainConsole
from conf.schema import Config
from conf.schema.data import ExampleConfig
from conf.settings import changed
from launch.chat import Conversation
from rewards.verify import verify


class Boxes:
    r"""An engine whose base model responds \boxed{1}, and whose adapter \boxed{7}."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, Sampling]] = []
        self.interrupted = ""

    async def stream(self, problem: Problem, adapter: object, sampling: Sampling):  # of text
        self.requests.append((problem.prompt, sampling))
        for part in ("\\boxed{", "7" if adapter else "1", "}"):
            await asyncio.sleep(0)
            if problem.prompt == self.interrupted:
                self.interrupted = ""
                signal.raise_signal(signal.SIGINT)
            yield part


class Keyboard(io.StringIO):
    def isatty(self) -> bool:
        return True


class Words:
    """A tokenizer of words, whose chat template is one message a line."""

    def apply_chat_template(self, messages: list[dict[str, str]], **settings: object) -> str:
        assert settings == {"add_generation_prompt": True, "tokenize": False, "enable_thinking": False}
        return "".join(f"{message['role']}: {message['content']}\n" for message in messages)

    def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
        return {"input_ids": list(range(len(text.split())))}


@pytest.fixture
def config() -> Config:
    return changed(
        Config(),
        {
            "data.chat_settings": {"enable_thinking": False},
            "rollout.max_prompt_tokens": 20,
            "rollout.max_response_tokens": 100,
            "eval.max_response_tokens": 24,
            "eval.temperature": 0.5,
        },
    )


Say = Callable[..., str]


@pytest.fixture
def engine() -> Boxes:
    return Boxes()


@pytest.fixture
def say(config: Config, engine: Boxes, monkeypatch: pytest.MonkeyPatch) -> Say:
    """Says lines in a new chat and returns what is printed."""

    def say(*lines: str, config: Config = config, source: type[io.StringIO] = io.StringIO) -> str:
        console = PlainConsole(file=io.StringIO(), width=100)
        monkeypatch.setattr("sys.stdin", source("".join(f"{line}\n" for line in lines)))
        problems = [Problem("p", "solve\n3 + 4", (1, 2), "7"), Problem("q", "solve\n0 + 1", (1, 2), "1")]

        def verdict(gold: str, response: str, grader: str) -> Verdict:
            return verify(gold, response)

        models = {"base": None, "trained": AdapterRef(0, 0, "the adapter")}
        with asyncio.Runner() as runner:
            Conversation(config, console, Words(), models, engine.stream, verdict, lambda: problems).talk(runner)
        return console.file.getvalue()  # type: ignore[attr-defined]

    return say


def test_both_models_respond_and_remember_their_own(say: Say, engine: Boxes) -> None:
    row = next(line for line in say("hello", "and now?").splitlines() if "boxed" in line)
    assert row.index("{1}") < row.index("{7}")
    prompts = [prompt for prompt, _ in engine.requests]
    assert prompts[0] == prompts[1] == "user: hello\n"
    assert prompts[2:] == [f"user: hello\nassistant: \\boxed{{{said}}}\nuser: and now?\n" for said in (1, 7)]
    assert {sampling.max_tokens for _, sampling in engine.requests} == {100}
    seeds = [sampling.seed for _, sampling in engine.requests]
    assert seeds[0] == seeds[1] != seeds[2] == seeds[3]


def test_problem_is_shown_as_in_the_evaluation(say: Say, engine: Boxes) -> None:
    said = say("/problem 1")
    assert said.startswith("3 + 4\nreference answer: 7\n")
    assert said.index("wrong") < said.index("correct")
    assert {(prompt, sampling.max_tokens, sampling.temperature) for prompt, sampling in engine.requests} == {
        ("solve\n3 + 4", 24, 0.5)
    }


def test_own_problem_gets_instructions_and_examples(config: Config, say: Say, engine: Boxes) -> None:
    config = changed(config, {"data.template": "Solve {problem}", "data.few_shot": [ExampleConfig("1 + 1", "2")]})
    say("hello", "/ask 3 + 4", "again", config=config)
    requested = [(prompt, sampling.max_tokens) for prompt, sampling in engine.requests]
    assert requested[2:4] == [("user: Solve 1 + 1\nassistant: 2\nuser: Solve 3 + 4\n", 24)] * 2
    assert "Solve" not in requested[4][0]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("/help", "/problem N"),
        ("/problem 3", "/problem 3"),
        ("/prblem 1", "/prblem"),
        ("word " * 20, "the conversation has 21 tokens"),
    ],
)
def test_refused_line_does_not_end_the_chat(line: str, expected: str, say: Say) -> None:
    said = say(line, "", "hello")
    assert said.startswith(expected)
    assert r"\boxed{7}" in said


def test_interrupt_ends_a_response_of_a_terminal_and_otherwise_the_chat(say: Say, engine: Boxes) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a worker of pytest-xdist ignores it
    engine.interrupted = "user: hello\n"
    with pytest.raises(KeyboardInterrupt):
        say("hello", "again")
    assert len(engine.requests) == 2
    engine.interrupted = "user: hello\n"
    said = say("hello", "again", "/quit", source=Keyboard)
    assert "stopped" in said
    assert r"\boxed{7}" in said.partition("stopped")[2]
    assert engine.requests[-1][0] == "user: again\n"  # a stopped turn is not remembered


def test_new_forgets_and_quit_ends(say: Say, engine: Boxes) -> None:
    say("hello", "/new", "again", "/quit", "never said")
    assert [prompt for prompt, _ in engine.requests] == ["user: hello\n"] * 2 + ["user: again\n"] * 2
