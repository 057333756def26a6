"""The loop of a chat: reads lines, obeys those that begin with a slash, puts the others to both models."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any, Protocol

from rich.console import Console
from rich.live import Live

from actors.evaluation.evaluator import response_limit
from actors.messages import AdapterRef, Problem, Sampling, Verdict
from actors.seeds import request_seed
from conf.arguments import whole
from conf.errors import BadInput
from conf.schema import Config
from launch.after.screen import side_by_side
from rewards.problems.chat import render

SIDES = ("base", "trained")

HELP = """/problem N  pose held-out problem N as in the run's evaluation, with gold answer and verdicts
/ask TEXT   pose a problem of yours in the same way, with the run's instructions and examples
/samples    what changed in the run's own answers, worst first
/new        begin a new conversation
/help       this
/quit       end, as does the end of the input
Anything else is said to both models, which remember their own answers."""

PROMPT = "> "


class Engine(Protocol):
    """Has the base model and the adapter."""

    def stream(self, problem: Problem, adapter: AdapterRef | None, sampling: Sampling) -> AsyncIterator[str]: ...


class Judge(Protocol):
    """Judges a response as the run does."""

    def verify(self, gold: str, response: str, grader: str = "") -> Verdict: ...


class Chat:
    """One person talking to base and trained model, which are asked the same and remember their own answers."""

    def __init__(
        self,
        config: Config,
        console: Console,
        tokenizer: Any,
        engine: Engine,
        adapter: AdapterRef,
        judge: Judge,
        problems: Callable[[], Sequence[Problem]],
        samples: Callable[[], object],
        asked: Callable[[str], str] = str.strip,
    ) -> None:
        """config: its prompts are as long as a conversation may become. problems: returns the held-out ones, in order.
        samples: prints what changed. asked: returns of a prompt what is not in all of them.
        """
        self._config, self._console, self._tokenizer = config, console, tokenizer
        self._engine, self._adapters = engine, dict(zip(SIDES, (None, adapter), strict=True))
        self._judge, self._problems, self._samples, self._asked = judge, problems, samples, asked
        self._turns = 0
        self._forget()

    def talk(self, runner: asyncio.Runner, lines: Iterator[str]) -> None:
        """Obey lines until they end or say /quit. What is wrong with one is said, and the next is read."""
        for line in map(str.strip, lines):
            if line.split(" ")[0] == "/quit":
                return
            try:
                runner.run(self._obey(line))
            except BadInput as error:
                self._say(str(error))

    async def _obey(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        match word:
            case "":
                return
            case "/help":
                self._say(HELP)
            case "/new":
                self._forget()
            case "/samples":
                self._samples()
            case "/problem":
                await self._pose(rest.strip())
            case "/ask":
                await self._ask(rest.strip())
            case _ if word.startswith("/"):
                raise BadInput(f"{word}: no such command; /help lists them")
            case _:
                await self._speak(line)

    def _forget(self) -> None:
        system = self._config.data.system
        first = [] if system is None else [message("system", system)]
        self._said = {side: list(first) for side in SIDES}

    async def _speak(self, text: str) -> None:
        """Put a text to both models, in the conversation of each."""
        prompts = {}
        for side, said in self._said.items():
            settings = {"add_generation_prompt": True, "tokenize": False, **self._config.data.chat_settings}
            prompts[side] = self._sized(self._tokenizer.apply_chat_template([*said, message("user", text)], **settings))
        answers = await self._answer(prompts, self._config.rollout.max_response_tokens)
        self._show(answers)
        for side, said in self._said.items():
            said += [message("user", text), message("assistant", answers[side])]

    async def _pose(self, number: str) -> None:
        """Pose a held-out problem under the settings of the run's evaluation, and judge the answers."""
        problems = self._problems()
        if not (place := whole(number, len(problems))):
            raise BadInput(f"/problem {number}: give a number from 1 to {len(problems)}")
        problem = problems[place - 1]
        self._say(f"{self._asked(problem.prompt).strip()}\ngold: {problem.gold}")
        answers = await self._answer(dict.fromkeys(SIDES, problem), response_limit(self._config))
        verdicts = [
            await asyncio.to_thread(self._judge.verify, problem.gold, answers[side], problem.grader) for side in SIDES
        ]
        self._show(answers, [verdict.status.value for verdict in verdicts])

    async def _ask(self, text: str) -> None:
        """Pose a problem of a person's as the run poses its own, outside of the conversation."""
        if not text:
            raise BadInput("/ask: give the problem on the same line")
        problem = self._sized(render([], text, self._config.data, self._tokenizer))
        self._show(await self._answer(dict.fromkeys(SIDES, problem), response_limit(self._config)))

    def _sized(self, prompt: str) -> Problem:
        ids = self._tokenizer(prompt, add_special_tokens=False)["input_ids"]
        if len(ids) > (longest := self._config.rollout.max_prompt_tokens):
            raise BadInput(
                f"the conversation has {len(ids)} tokens, and there is room for {longest}: begin anew by /new"
            )
        return Problem("", prompt, tuple(ids), "")

    async def _answer(self, prompts: dict[str, Problem], limit: int) -> dict[str, str]:
        """Return the answer of each model to its prompt. On a terminal they are shown as they come."""
        self._turns += 1
        settings, seed = self._config.eval, request_seed(self._config.run.seed, "chat", self._turns)
        sampling = Sampling(1, limit, settings.temperature, settings.top_p, seed)
        texts = dict.fromkeys(SIDES, "")
        shown = Live(console=self._console, transient=True, refresh_per_second=8)
        with shown if self._console.is_terminal else nullcontext():

            async def stream(side: str) -> None:
                async for text in self._engine.stream(prompts[side], self._adapters[side], sampling):
                    texts[side] += text
                    shown.update(side_by_side(SIDES, (texts["base"], texts["trained"])))

            async with asyncio.TaskGroup() as tasks:
                for side in SIDES:
                    tasks.create_task(stream(side))
        return texts

    def _show(self, answers: dict[str, str], verdicts: Sequence[str] = ()) -> None:
        """Print answers: beside each other on a terminal, else one after the other."""
        if self._console.is_terminal:
            self._console.print(side_by_side(SIDES, [answers[side] for side in SIDES], verdicts))
            return
        for side, verdict in zip(SIDES, verdicts or ("", ""), strict=True):
            self._say(f"{side}: {answers[side].strip()}" + (f" [{verdict}]" if verdict else ""))

    def _say(self, text: str) -> None:
        self._console.print(text, soft_wrap=True)


def message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def typed(console: Console) -> Iterator[str]:
    """Yield the lines a person types, or of a pipe, until their end."""
    while True:
        try:
            yield console.input(PROMPT if console.is_terminal else "")
        except EOFError:
            return
