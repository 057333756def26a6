"""The loop of a chat: reads lines, obeys those that begin with a slash, puts the others to both models."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.live import Live

from actors.evaluation.evaluator import response_limit
from actors.messages import Problem, Sampling, Verdict
from actors.seeds import request_seed
from conf.errors import BadInput
from conf.schema import Config
from launch.chats.conversation import SIDES, Conversation
from launch.chats.policies import Policies, Show
from launch.trained.side_by_side import side_by_side

HELP = """/problem N  pose held-out problem N as in the run's evaluation, with gold answer and verdicts
/ask TEXT   pose a problem of yours in the same way, with the run's instructions and examples
/samples    what changed in the run's own answers, worst first
/new        begin a new conversation
/help       this
/quit       end, as does the end of the input
Anything else is said to both models, which remember their own answers."""

PROMPT = "> "


class Judge(Protocol):
    """Judges a response as the run does."""

    def verify(self, gold: str, response: str, grader: str = "") -> Verdict: ...


class Chat:
    """One person talking to base and trained model.

    problems: returns the held-out problems of the run, in order. samples: prints what changed. asked: returns of a
    prompt what is not in all of them.
    """

    def __init__(
        self,
        config: Config,
        console: Console,
        policies: Policies,
        conversation: Conversation,
        judge: Judge,
        problems: Callable[[], Sequence[Problem]],
        samples: Callable[[], object],
        asked: Callable[[str], str] = str.strip,
    ) -> None:
        self._config, self._console = config, console
        self._policies, self._conversation, self._judge = policies, conversation, judge
        self._problems, self._samples, self._asked = problems, samples, asked
        self._turns = 0

    def talk(self, runner: asyncio.Runner, lines: Iterator[str]) -> None:
        """Obey lines until they end or say /quit. What is wrong with one is said, and the next is read."""
        for line in lines:
            word, _, rest = line.strip().partition(" ")
            if word == "/quit":
                return
            try:
                self._obey(runner, word, rest.strip(), line.strip())
            except BadInput as error:
                self._say(str(error))

    def _obey(self, runner: asyncio.Runner, word: str, rest: str, line: str) -> None:
        match word:
            case "":
                return
            case "/help":
                self._say(HELP)
            case "/new":
                self._conversation.forget()
            case "/samples":
                self._samples()
            case "/problem":
                runner.run(self._pose(rest))
            case "/ask":
                runner.run(self._ask(rest))
            case _ if word.startswith("/"):
                raise BadInput(f"{word}: no such command; /help lists them")
            case _:
                runner.run(self._speak(line))

    async def _speak(self, text: str) -> None:
        prompts = self._conversation.ask(text)
        answers = await self._answer(prompts, self._config.rollout.max_response_tokens)
        self._show(answers)
        self._conversation.answered(text, answers)

    async def _pose(self, number: str) -> None:
        """Pose a held-out problem under the settings of the run's evaluation, and judge the answers."""
        problems = self._problems()
        if not (number.isdecimal() and 1 <= int(number) <= len(problems)):
            raise BadInput(f"/problem {number}: give a number from 1 to {len(problems)}")
        problem = problems[int(number) - 1]
        self._say(f"{self._asked(problem.prompt).strip()}\ngold: {problem.gold}")
        answers = await self._answer(dict.fromkeys(SIDES, problem), response_limit(self._config))
        verdicts = {
            side: await asyncio.to_thread(self._judge.verify, problem.gold, answers[side], problem.grader)
            for side in SIDES
        }
        self._show(answers, {side: verdict.status.value for side, verdict in verdicts.items()})

    async def _ask(self, text: str) -> None:
        if not text:
            raise BadInput("/ask: give the problem on the same line")
        self._show(
            await self._answer(dict.fromkeys(SIDES, self._conversation.alone(text)), response_limit(self._config))
        )

    async def _answer(self, prompts: dict[str, Problem], limit: int) -> dict[str, str]:
        self._turns += 1
        settings = self._config.eval
        seed = request_seed(self._config.run.seed, "chat", self._turns)
        with self._stream() as show:
            return await self._policies.answer(
                prompts, Sampling(1, limit, settings.temperature, settings.top_p, seed), show
            )

    @contextmanager
    def _stream(self) -> Iterator[Show]:
        """Yield what shows answers as they come: on a terminal, where they make way for the whole in the end."""
        if not self._console.is_terminal:
            yield lambda texts: None
            return
        with Live(console=self._console, transient=True, refresh_per_second=8) as live:
            yield lambda texts: live.update(side_by_side(SIDES, (texts["base"], texts["trained"])))

    def _show(self, answers: dict[str, str], verdicts: dict[str, str] | None = None) -> None:
        """Print answers: beside each other on a terminal, else one after the other."""
        if self._console.is_terminal:
            said, judged = ((each["base"], each["trained"]) if each else None for each in (answers, verdicts))
            self._console.print(side_by_side(SIDES, said or ("", ""), judged))
            return
        for side in SIDES:
            self._say(f"{side}: {answers[side].strip()}" + (f" [{verdicts[side]}]" if verdicts else ""))

    def _say(self, text: str) -> None:
        self._console.print(text, soft_wrap=True)


def typed(console: Console) -> Iterator[str]:
    """Yield the lines a person types, or of a pipe, until their end."""
    while True:
        try:
            yield console.input(PROMPT if console.is_terminal else "")
        except EOFError:
            return
