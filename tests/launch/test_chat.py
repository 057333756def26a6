import asyncio
import io
import os
from collections.abc import AsyncIterator
from typing import NoReturn

import pytest

from microbudget_rl.actors.messages import AdapterRef, Problem, Request, Sampling, Verdict
from microbudget_rl.conf.command import PlainConsole
from microbudget_rl.conf.errors import TryLater
from microbudget_rl.conf.schema import Config
from microbudget_rl.conf.schema.data import ExampleConfig
from microbudget_rl.conf.settings import changed
from microbudget_rl.launch.chat import Chat, off_screen
from microbudget_rl.rewards.verify import verify

CONFIG = changed(
    Config(),
    {
        "data.chat_settings": {"enable_thinking": False},
        "data.template": "Solve {problem}",
        "data.few_shot": [ExampleConfig("1 + 1", "2")],
        "rollout.max_prompt_tokens": 20,
        "eval.max_response_tokens": 24,
        "eval.temperature": 0.5,
    },
)


class Words:
    """A tokenizer of words, whose chat template is one message a line."""

    def apply_chat_template(self, messages: list[dict[str, str]], **settings: object) -> str:
        assert settings == {"add_generation_prompt": True, "tokenize": False, "enable_thinking": False}
        return "".join(f"{message['role']}: {message['content']}\n" for message in messages)

    def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
        return {"input_ids": list(range(len(text.split())))}


def chat(monkeypatch: pytest.MonkeyPatch, *lines: str) -> tuple[str, list[tuple[str, Sampling]]]:
    r"""Give lines to a base model that responds \boxed{1}, and an adapter that responds \boxed{7}. Return what is
    printed, and the requests.
    """
    requests: list[tuple[str, Sampling]] = []

    async def stream(request: Request) -> AsyncIterator[str]:
        requests.append((request.problem.prompt, request.sampling))
        for part in ("\\boxed{", "7" if request.adapter else "1", "}"):
            await asyncio.sleep(0)
            yield part

    def verdict(gold: str, response: str, grader: str) -> Verdict:
        return verify(gold, response)

    console = PlainConsole(file=io.StringIO(), width=100)
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
    problems = [Problem("p", "solve\n3 + 4", (1, 2), "7"), Problem("q", "solve\n0 + 1", (1, 2), "1")]
    models = {"base": None, "trained": AdapterRef(0, 0, "the adapter")}
    with asyncio.Runner() as runner:
        Chat(CONFIG, console, Words(), models, stream, verdict, lambda: problems).talk(runner)
    return console.file.getvalue(), requests  # type: ignore[attr-defined]


def test_every_line_is_a_problem_with_instructions_and_examples(monkeypatch: pytest.MonkeyPatch):
    said, requests = chat(monkeypatch, "3 + 4", "", "5 + 6")
    row = next(line for line in said.splitlines() if "boxed" in line)
    assert row.index("{1}") < row.index("{7}")
    assert "correct" not in said
    examples = "user: Solve 1 + 1\nassistant: 2\n"
    assert [prompt for prompt, _ in requests] == [
        f"{examples}user: Solve {sum_}\n" for sum_ in ["3 + 4"] * 2 + ["5 + 6"] * 2
    ]
    seeds = [sampling.seed for _, sampling in requests]
    assert seeds[0] == seeds[1] != seeds[2] == seeds[3]


def test_problem_is_shown_as_in_the_evaluation(monkeypatch: pytest.MonkeyPatch):
    said, requests = chat(monkeypatch, "/problem 1")
    assert said.startswith("3 + 4\nreference answer: 7\n")
    assert said.index("wrong") < said.index("correct")
    assert {(prompt, sampling.max_tokens, sampling.temperature) for prompt, sampling in requests} == {
        ("solve\n3 + 4", 24, 0.5)
    }


@pytest.mark.parametrize(
    ("line", "expected"), [("/problem 3", "/problem 3: "), ("word " * 20, "the prompt has 29 tokens")]
)
def test_refused_line_does_not_end_the_chat(line: str, expected: str, monkeypatch: pytest.MonkeyPatch):
    said, _ = chat(monkeypatch, line, "hello")
    assert said.startswith(expected)
    assert r"\boxed{7}" in said


def test_log_is_shown_only_if_the_engine_fails(capfd: pytest.CaptureFixture[str]):
    with off_screen() as screen:
        os.write(1, b"noise")
        print("answer", file=screen)
    assert capfd.readouterr() == ("answer\n", "")

    def fail() -> NoReturn:
        with off_screen():
            os.write(1, b"noise")
            raise RuntimeError("no memory")

    with pytest.raises(TryLater, match="no memory"):
        fail()
    assert capfd.readouterr() == ("", "noise")
