"""The loop of a chat: reads lines, obeys those that begin with a slash, puts the others to both models."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.live import Live

from actors.evaluation.protocol import response_limit
from actors.messages import AdapterRef, Problem, Sampling, Verdict
from actors.seeds import request_seed
from conf.arguments import whole
from conf.errors import BadInput
from conf.schema import Config
from launch.after.screen import side_by_side
from launch.reporting.tables import problem_in
from rewards.problems.chat import render

HELP = """/problem N  pose held-out problem N as in the run's evaluation, with gold answer and verdicts
/ask TEXT   pose a problem of yours in the same way, with the run's instructions and examples
/samples    what changed in the run's own answers, worst first
/new        begin a new conversation
/help       this
/quit       end, as does the end of the input
Anything else is said to both models, which remember their own answers."""


@dataclass
class Conversation:
    """One person talking to base and trained model, which are asked the same and remember their own answers.

    config: its prompts are as long as a conversation may become. sides: the adapter of each model, by its name.
    stream: yields the parts of one answer. judge: of gold answer, response and grader.
    problems: returns the held-out ones, in order. samples: prints what changed.
    """

    config: Config
    console: Console
    tokenizer: Any
    sides: Mapping[str, AdapterRef | None]
    stream: Callable[[Problem, AdapterRef | None, Sampling], AsyncIterator[str]]
    judge: Callable[[str, str, str], Verdict]
    problems: Callable[[], Sequence[Problem]]
    samples: Callable[[], object]

    def __post_init__(self) -> None:
        self._turns = 0
        self._forget()

    def talk(self, runner: asyncio.Runner) -> None:
        """Obey lines until they end or say /quit. What is wrong with one is said, and the next is read."""
        for line in map(str.strip, self._typed()):
            if line.split(" ")[0] == "/quit":
                return
            try:
                runner.run(self._obey(line))
            except BadInput as error:
                self._say(str(error))

    def _typed(self) -> Iterator[str]:
        """Yield the lines a person types, or of a pipe, until their end."""
        while True:
            try:
                yield self.console.input("> " if self.console.is_terminal else "")
            except EOFError:
                return

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
                self.samples()
            case "/problem":
                await self._pose(rest.strip())
            case "/ask":
                await self._ask(rest.strip())
            case _ if word.startswith("/"):
                raise BadInput(f"{word}: no such command; /help lists them")
            case _:
                await self._speak(line)

    def _forget(self) -> None:
        system = self.config.data.system
        self._said = {side: [] if system is None else [message("system", system)] for side in self.sides}

    async def _speak(self, text: str) -> None:
        """Put a text to both models, in the conversation of each."""
        settings = {"add_generation_prompt": True, "tokenize": False, **self.config.data.chat_settings}
        prompts = {
            side: self._sized(self.tokenizer.apply_chat_template([*said, message("user", text)], **settings))
            for side, said in self._said.items()
        }
        answers = await self._answer(prompts, self.config.rollout.max_response_tokens)
        self._show(answers)
        for side, said in self._said.items():
            said += [message("user", text), message("assistant", answers[side])]

    async def _pose(self, number: str) -> None:
        """Pose a held-out problem under the settings of the run's evaluation, and judge the answers."""
        problems = self.problems()
        if not (place := whole(number, len(problems))):
            raise BadInput(f"/problem {number}: give a number from 1 to {len(problems)}")
        problem = problems[place - 1]
        asked = problem_in({each.prompt for each in problems})[problem.prompt]
        self._say(f"{asked.strip()}\ngold: {problem.gold}")
        answers = await self._answer(dict.fromkeys(self.sides, problem), response_limit(self.config))
        verdicts = [
            await asyncio.to_thread(self.judge, problem.gold, text, problem.grader) for text in answers.values()
        ]
        self._show(answers, [verdict.status.value for verdict in verdicts])

    async def _ask(self, text: str) -> None:
        """Pose a problem of a person's as the run poses its own, outside of the conversation."""
        if not text:
            raise BadInput("/ask: give the problem on the same line")
        problem = self._sized(render([], text, self.config.data, self.tokenizer))
        self._show(await self._answer(dict.fromkeys(self.sides, problem), response_limit(self.config)))

    def _sized(self, prompt: str) -> Problem:
        ids = self.tokenizer(prompt, add_special_tokens=False)["input_ids"]
        if len(ids) > (longest := self.config.rollout.max_prompt_tokens):
            raise BadInput(
                f"the conversation has {len(ids)} tokens, and there is room for {longest}: begin anew by /new"
            )
        return Problem("", prompt, tuple(ids), "")

    async def _answer(self, prompts: dict[str, Problem], limit: int) -> dict[str, str]:
        """Return the answer of each model to its prompt. On a terminal they are shown as they come."""
        self._turns += 1
        settings, seed = self.config.eval, request_seed(self.config.run.seed, "chat", self._turns)
        sampling = Sampling(1, limit, settings.temperature, settings.top_p, seed)
        texts = dict.fromkeys(self.sides, "")
        shown = Live(console=self.console, transient=True, refresh_per_second=8)

        async def stream(side: str) -> None:
            async for text in self.stream(prompts[side], self.sides[side], sampling):
                texts[side] += text
                shown.update(side_by_side(texts))

        with shown if self.console.is_terminal else nullcontext():
            async with asyncio.TaskGroup() as tasks:
                for side in self.sides:
                    tasks.create_task(stream(side))
        return texts

    def _show(self, answers: dict[str, str], verdicts: Sequence[str] = ()) -> None:
        """Print answers: beside each other on a terminal, else one after the other."""
        if self.console.is_terminal:
            self.console.print(side_by_side(answers, verdicts))
            return
        for (side, answer), verdict in zip(answers.items(), verdicts or ("", ""), strict=True):
            self._say(f"{side}: {answer.strip()}" + (f" [{verdict}]" if verdict else ""))

    def _say(self, text: str) -> None:
        self.console.print(text, soft_wrap=True)


def message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}
