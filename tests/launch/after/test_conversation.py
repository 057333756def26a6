import asyncio
import io
from collections.abc import Callable
from pathlib import Path

import pytest

from actors.messages import AdapterRef, Problem, Sampling, Verdict
from conf.command import PlainConsole
from conf.errors import BadInput
from conf.schema import Config
from conf.schema.data import ExampleConfig
from conf.settings import changed
from launch.after.conversation import HELP, Conversation
from rewards.verify import verify


class Echo:
    """An engine whose base model repeats the end of its prompt, and whose adapter boxes the length of it."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Sampling]] = []

    async def stream(self, problem: Problem, adapter: object, sampling: Sampling):  # of text
        self.asked.append((problem.prompt, sampling))
        for part in ("\\boxed{", "7" if adapter else "1", "}"):
            await asyncio.sleep(0)
            yield part


def judge(gold: str, response: str, grader: str) -> Verdict:
    return verify(gold, response)


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
def engine() -> Echo:
    return Echo()


@pytest.fixture
def say(config: Config, engine: Echo, monkeypatch: pytest.MonkeyPatch) -> Say:
    """Says lines in a new chat and returns what is printed."""

    def say(*lines: str, terminal: bool = False, config: Config = config) -> str:
        console = PlainConsole(file=io.StringIO(), force_terminal=terminal, width=100)
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        problems = [Problem("p", "solve\n3 + 4", (1, 2), "7"), Problem("q", "solve\n0 + 1", (1, 2), "1")]

        def samples() -> None:
            raise BadInput("the run has no samples")

        sides = {"base": None, "trained": AdapterRef(0, 0, "the adapter")}
        conversation = Conversation(config, console, Words(), sides, engine.stream, judge, lambda: problems, samples)
        with asyncio.Runner() as runner:
            conversation.talk(runner)
        return console.file.getvalue()  # type: ignore[attr-defined]

    return say


def test_both_models_answer_and_remember_their_own_answers(say: Say, engine: Echo) -> None:
    assert say("hello", "and now?").splitlines() == [r"base: \boxed{1}", r"trained: \boxed{7}"] * 2
    prompts = [prompt for prompt, _ in engine.asked]
    assert prompts[0] == prompts[1] == "user: hello\n"
    assert prompts[2:] == [f"user: hello\nassistant: \\boxed{{{said}}}\nuser: and now?\n" for said in (1, 7)]
    assert {sampling.max_tokens for _, sampling in engine.asked} == {100}
    seeds = [sampling.seed for _, sampling in engine.asked]
    assert seeds[0] == seeds[1] != seeds[2] == seeds[3]


def test_problem_is_posed_as_in_the_evaluation_and_judged(say: Say, engine: Echo) -> None:
    assert say("/problem 1").splitlines() == [
        "3 + 4",
        "gold: 7",
        r"base: \boxed{1} [wrong]",
        r"trained: \boxed{7} [correct]",
    ]
    assert {(prompt, sampling.max_tokens, sampling.temperature) for prompt, sampling in engine.asked} == {
        ("solve\n3 + 4", 24, 0.5)
    }


def test_a_problem_of_ones_own_is_posed_as_the_run_poses_its_own(config: Config, say: Say, engine: Echo) -> None:
    config = changed(config, {"data.template": "Solve {problem}", "data.examples": [ExampleConfig("1 + 1", "2")]})
    say("hello", "/ask 3 + 4", "again", config=config)
    asked = [(prompt, sampling.max_tokens) for prompt, sampling in engine.asked]
    assert asked[2:4] == [("user: Solve 1 + 1\nassistant: 2\nuser: Solve 3 + 4\n", 24)] * 2
    assert "Solve" not in asked[4][0]


def test_on_a_terminal_answers_stand_side_by_side(say: Say) -> None:
    said = say("/problem 2", terminal=True)
    row = [line for line in said.splitlines() if line.count("boxed") == 2][-1]
    assert row.index("{1}") < row.index("{7}")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("/help", HELP.splitlines()[0]),
        ("/problem", "/problem"),
        ("/ask", "/ask"),
        ("/problem 3", "/problem 3"),
        (f"/problem {'9' * 5000}", "/problem 999"),
        ("/samples", "the run has no samples"),
        ("/prblem 1", "/prblem"),
        ("word " * 20, "the conversation has 21 tokens"),
    ],
)
def test_what_is_wrong_is_said_and_the_chat_goes_on(line: str, expected: str, say: Say, engine: Echo) -> None:
    said = say(line, "", "hello").splitlines()
    assert said[0].startswith(expected)
    assert said[-1] == r"trained: \boxed{7}"


def test_new_forgets_and_quit_ends(say: Say, engine: Echo) -> None:
    say("hello", "/new", "again", "/quit", "never said")
    assert [prompt for prompt, _ in engine.asked] == ["user: hello\n"] * 2 + ["user: again\n"] * 2


def test_bad_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from launch import chat

    for arguments in (["nowhere"], [str(tmp_path)], [str(tmp_path), "format=merged"]):
        assert chat.main(arguments) == 2
        assert capsys.readouterr().err.count("\n") == 1
