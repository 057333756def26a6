"""Give problems to a run's base model and trained model, side by side.

    python launch/chat.py RUN_FOLDER [checkpoint=latest|best|update-…]

Examples:

    python launch/chat.py runs/quickstart
    python launch/chat.py runs/first checkpoint=latest
    echo "/problem 3" | python launch/chat.py runs/quickstart

Every line is a problem. Both models receive it as in the run's evaluation, with its prompt template and few-shot
examples, in an engine like the run's. /problem 3 is held-out problem 3, whose responses are verified. Lines may come
from a pipe; their end or Ctrl-C ends the chat.
"""

if __name__ == "__main__":
    import microbudget_rl.conf.first  # noqa: F401

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import count
from typing import Any, TextIO

from rich.console import Console
from rich.live import Live

from microbudget_rl.actors.attempt import evaluation_sampling
from microbudget_rl.actors.errors import ActorDied
from microbudget_rl.actors.messages import AdapterRef, Problem, Request, Verdict
from microbudget_rl.actors.models.prompts import render_prompt
from microbudget_rl.conf.arguments import run_and_options, whole
from microbudget_rl.conf.command import PlainConsole, command, near
from microbudget_rl.conf.errors import BadInput, TryLater, in_brief
from microbudget_rl.conf.schema import Config
from microbudget_rl.conf.signals import on_leave, scratch_folder
from microbudget_rl.launch.reporting.tables import problem_in
from microbudget_rl.launch.samples import side_by_side
from microbudget_rl.launch.trained.policy import Trained, find_trained, talking


@command("chat.py", __doc__)
def main(arguments: list[str]) -> int:
    """Return the exit code: 0, 1 if the engine fails, 2 for bad input, 130 after Ctrl-C."""
    folder, given = run_and_options(arguments, {"checkpoint": ()})
    trained = find_trained(folder, given.get("checkpoint", ""))
    with off_screen() as screen:
        chat(trained, PlainConsole(file=screen))
    return 0


@contextmanager
def off_screen() -> Iterator[TextIO]:
    """Yield a stream to stdout. All other output of this process and its children is shown only if the engine fails."""
    screen, errors = os.dup(1), os.dup(2)
    with scratch_folder("chat-") as folder, (folder / "log").open("w") as log:
        on_leave(partial(os.dup2, errors, 2))
        redirect(log.fileno(), log.fileno())
        try:
            with os.fdopen(os.dup(screen), "w", encoding=sys.stdout.encoding, errors="backslashreplace") as stream:
                yield stream
        except (ActorDied, RuntimeError) as error:
            redirect(screen, errors)
            sys.stderr.write((folder / "log").read_text("utf-8", "replace"))
            raise TryLater(f"the engine failed, see its log above: {in_brief(error)}") from None
        finally:
            redirect(screen, errors)


def redirect(out: int, err: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(out, 1)
    os.dup2(err, 2)


def chat(trained: Trained, console: Console) -> None:
    """Start an engine and answer until the input ends. Raises BadInput if this machine has no room for an engine."""
    config, share = talking(trained)
    share.bind()  # before torch is imported
    from transformers import AutoTokenizer

    from microbudget_rl.actors.rollout.vllm_engine import RolloutEngine
    from microbudget_rl.rewards.pool import VerifierPool
    from microbudget_rl.rewards.problems.loading import load_held_out
    from microbudget_rl.rewards.weighted_sum import RewardFunction

    config = replace(config, data=next(iter(config.data.by_source.values())))  # of a mixture, the first source's
    console.print(f"Starting an engine for {near(trained.checkpoint)} …")
    tokenizer = AutoTokenizer.from_pretrained(trained.model_path)
    reward = replace(trained.config.reward, custom=[])  # no verdict is a user's function's
    adapter = AdapterRef(0, 0, str(trained.adapter))

    async def start() -> RolloutEngine:
        engine = RolloutEngine(config, trained.model_path, share)
        await engine.load(adapter)
        return engine

    with asyncio.Runner() as runner, VerifierPool(RewardFunction(reward), 1) as verifier:
        engine = runner.run(start())
        try:
            console.print("Ready: type a problem, or /problem 1 for a held-out one.")
            problems = cache(lambda: load_held_out(trained.config, tokenizer).heldout)
            models = {"base": None, "trained": adapter}
            Chat(config, console, tokenizer, models, engine.stream, verifier.verify, problems).talk(runner)
        finally:
            runner.run(engine.close())


@dataclass(frozen=True)
class Chat:
    """Shows the responses of two models, by name with their adapters, to one problem after another."""

    config: Config
    console: Console
    tokenizer: Any
    models: Mapping[str, AdapterRef | None]
    stream: Callable[[Request], AsyncIterator[str]]
    verify: Callable[[str, str, str], Verdict]
    problems: Callable[[], Sequence[Problem]]

    def talk(self, runner: asyncio.Runner) -> None:
        """Answer lines until the input ends. After a wrong line, say so and read the next."""
        for turn in count():
            try:
                line = self.console.input("> " if self.console.is_terminal else "").strip()
                if line:
                    runner.run(self._respond(self._problem(line), turn))
            except BadInput as error:
                self.console.print(str(error))
            except EOFError:
                return

    def _problem(self, line: str) -> Problem:
        """Return the held-out problem that a line names, or the problem that it is."""
        word, _, number = line.partition(" ")
        if word != "/problem":
            text = render_prompt([], line, self.config.data, self.tokenizer)
            ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
            if len(ids) > (longest := self.config.rollout.max_prompt_tokens):
                raise BadInput(f"the prompt has {len(ids)} tokens, more than the limit of {longest}: shorten it")
            return Problem("", text, tuple(ids), "")
        problems = self.problems()
        if not (place := whole(number.strip(), len(problems))):
            raise BadInput(f"{line}: give a number from 1 to {len(problems)}")
        problem = problems[place - 1]
        question = problem_in({each.prompt for each in problems})[problem.prompt]
        self.console.print(f"{question.strip()}\nreference answer: {problem.gold}")
        return problem

    async def _respond(self, problem: Problem, turn: int) -> None:
        """Show the models' responses, as they grow on a terminal, and the verdicts if there is a reference answer."""
        sampling = evaluation_sampling(self.config, "chat", turn)
        texts = dict.fromkeys(self.models, "")

        async def stream(model: str) -> None:
            async for text in self.stream(Request(0, problem, self.models[model], sampling)):
                texts[model] += text
                shown.update(side_by_side(texts))

        with Live(console=self.console, refresh_per_second=8, redirect_stdout=False, redirect_stderr=False) as shown:
            await asyncio.gather(*map(stream, self.models))
            if problem.id:
                verdicts = [self.verify(problem.gold, text, problem.grader) for text in texts.values()]
                shown.update(side_by_side(texts, [verdict.status.value for verdict in verdicts]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
