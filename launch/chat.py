"""Talk to a run's base model and trained model, side by side.

    python launch/chat.py RUN_FOLDER [checkpoint=latest|best|update-…]

Examples:

    python launch/chat.py runs/quickstart
    python launch/chat.py runs/first checkpoint=latest
    echo "/problem 3" | python launch/chat.py runs/quickstart

Both models respond with the settings of the run's evaluation, in an engine like the run's. In the chat, /problem 3
shows them a held-out problem and verifies their responses; /help lists all commands. Ctrl-C stops a response, and at
the prompt ends the chat. Lines may come from a pipe.
"""

if __name__ == "__main__":
    import conf.first  # noqa: F401

import asyncio
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.live import Live

from actors.errors import ActorDied, root_cause
from actors.evaluation.evaluator import response_limit
from actors.messages import AdapterRef, Problem, Sampling, Verdict, request_seed
from conf.arguments import run_and_options, whole
from conf.command import PlainConsole, command, near
from conf.errors import BadInput
from conf.schema import Config
from conf.signals import on_leave
from launch.after.trained import REPLY_TOKENS, Trained, find_trained, talking
from launch.reporting.tables import problem_in
from launch.samples import side_by_side
from rewards.problems.chat import render_prompt

HELP = """/problem N  show both models held-out problem N as in the run's evaluation, and verify their responses
/ask TEXT   show them a problem of yours in the same way, with the run's instructions and examples
/new        start a new conversation
/quit       end the chat, like the end of the input
All other text reaches them unchanged, without instructions or examples; they remember their own responses."""


@command("chat.py", __doc__)
def main(arguments: list[str]) -> int:
    """Return the exit code: 0, 1 if the engine fails, 2 for bad input, 130 after Ctrl-C."""
    folder, given = run_and_options(arguments, {"checkpoint": ()})
    trained = find_trained(folder, given.get("checkpoint", ""))
    with off_screen() as screen:
        return chat(trained, PlainConsole(file=screen))


@contextmanager
def off_screen() -> Iterator[TextIO]:
    """Yield a stream to stdout, and write all other output of this process and its children to a log.

    If the engine fails, the process exits with code 1 and names the log; otherwise the log is deleted.
    """
    screen, errors, failed = os.dup(1), os.dup(2), False
    with tempfile.NamedTemporaryFile(prefix="microbudget-chat-", suffix=".log", delete=False) as log:
        on_leave(partial(Path(log.name).unlink, missing_ok=True))
        on_leave(partial(os.dup2, errors, 2))
        redirect(log.fileno(), log.fileno())
    try:
        with os.fdopen(os.dup(screen), "w", encoding=sys.stdout.encoding, errors="backslashreplace") as stream:
            yield stream
    except Exception as error:
        if failed := isinstance(cause := root_cause(error), ActorDied | RuntimeError):
            traceback.print_exc()
            sys.exit(f"chat.py: the engine failed: {' '.join(str(cause).split())}; see its log, {log.name}")
        raise
    finally:
        redirect(screen, errors)
        if not failed:
            Path(log.name).unlink()


def redirect(out: int, err: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(out, 1)
    os.dup2(err, 2)


def chat(trained: Trained, console: Console) -> int:
    """Start an engine and talk until the input ends. Raises BadInput if this machine has no room for an engine."""
    config, share = talking(trained)
    share.bind()  # before torch is imported
    from transformers import AutoTokenizer

    from actors.rollout.vllm_engine import RolloutEngine
    from rewards.pool import VerifierPool
    from rewards.problems.loading import load_held_out
    from rewards.weighted_sum import RewardFunction

    config = replace(config, data=next(iter(config.data.by_source.values())))  # of a mixture, the first source's
    console.print(f"Starting an engine for {near(trained.checkpoint)} …")
    tokenizer = AutoTokenizer.from_pretrained(trained.model_path)
    adapter = AdapterRef(0, 0, str(trained.adapter))

    async def start() -> RolloutEngine:
        engine = RolloutEngine(config, trained.model_path, share)
        await engine.load(adapter)
        return engine

    with asyncio.Runner() as runner, VerifierPool(RewardFunction(trained.config.reward), 1) as verifier:
        engine = runner.run(start())
        try:
            console.print("Ready: /problem 1 shows both models a held-out problem, /help lists all commands.")
            console.print(f"A response to what you say has {REPLY_TOKENS} tokens at most. Ctrl-C stops a response.")
            problems = cache(lambda: load_held_out(trained.config, tokenizer).heldout)
            models = {"base": None, "trained": adapter}
            Conversation(config, console, tokenizer, models, engine.stream, verifier.verify, problems).talk(runner)
        finally:
            runner.run(engine.close())
    return 0


@dataclass
class Conversation:
    """A person's conversation with two models, which receive the same text and remember their own responses.

    config: settings whose prompt limit is the longest conversation.
    models: name of each model → its adapter.
    stream: yields the parts of one response.
    verify: returns the verdict for a reference answer, a response and a grader.
    problems: returns the held-out problems in order.
    """

    config: Config
    console: Console
    tokenizer: Any
    models: Mapping[str, AdapterRef | None]
    stream: Callable[[Problem, AdapterRef | None, Sampling], AsyncIterator[str]]
    verify: Callable[[str, str, str], Verdict]
    problems: Callable[[], Sequence[Problem]]

    def talk(self, runner: asyncio.Runner) -> None:
        """Obey lines until the input ends or says /quit. After a wrong line, say so and read the next.

        Ctrl-C stops what a line of a terminal has begun.
        """
        self._turns, ending = 0, signal.getsignal(signal.SIGINT)
        self._start()
        while True:
            try:
                line = self.console.input("> " if self.console.is_terminal else "").strip()
                if line == "/quit":
                    return
                try:
                    if sys.stdin.isatty():
                        signal.signal(signal.SIGINT, signal.default_int_handler)
                    runner.run(self._obey(line))
                except KeyboardInterrupt:
                    if not sys.stdin.isatty():
                        raise
                    self.console.print("stopped")
                finally:
                    signal.signal(signal.SIGINT, ending)
            except BadInput as error:
                self.console.print(str(error))
            except EOFError:
                return

    async def _obey(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        match word:
            case "/help":
                self.console.print(HELP)
            case "/new":
                self._start()
            case "/problem":
                await self._show_problem(rest.strip())
            case "/ask" if rest:
                prompt = self._prompt(render_prompt([], rest.strip(), self.config.data, self.tokenizer))
                await self._respond(dict.fromkeys(self.models, prompt), response_limit(self.config))
            case _ if word.startswith("/"):
                raise BadInput(f"{line}: not a command; /help lists all")
            case _ if line:
                await self._speak(line)

    def _start(self) -> None:
        system = self.config.data.system
        first = [] if system is None else [{"role": "system", "content": system}]
        self._messages = {model: [*first] for model in self.models}

    async def _speak(self, text: str) -> None:
        """Continue each model's conversation with a text."""
        settings = {"add_generation_prompt": True, "tokenize": False, **self.config.data.chat_settings}
        user = {"role": "user", "content": text}
        prompts = {
            model: self._prompt(self.tokenizer.apply_chat_template([*messages, user], **settings))
            for model, messages in self._messages.items()
        }
        responses = await self._respond(prompts, min(REPLY_TOKENS, self.config.rollout.max_response_tokens))
        for model, messages in self._messages.items():
            messages += [user, {"role": "assistant", "content": responses[model]}]

    async def _show_problem(self, number: str) -> None:
        """Show the models a held-out problem as in the run's evaluation, and verify their responses."""
        problems = self.problems()
        if not (place := whole(number, len(problems))):
            raise BadInput(f"/problem {number}: give a number from 1 to {len(problems)}")
        problem = problems[place - 1]
        question = problem_in({each.prompt for each in problems})[problem.prompt]
        self.console.print(f"{question.strip()}\nreference answer: {problem.gold}")
        await self._respond(dict.fromkeys(self.models, problem), response_limit(self.config), verify=True)

    def _prompt(self, text: str) -> Problem:
        """Return a problem with this prompt. Raises BadInput for a prompt that is too long."""
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(ids) > (longest := self.config.rollout.max_prompt_tokens):
            raise BadInput(f"the conversation has {len(ids)} tokens, more than the limit of {longest}: give /new")
        return Problem("", text, tuple(ids), "")

    async def _respond(self, prompts: dict[str, Problem], limit: int, verify: bool = False) -> dict[str, str]:
        """Return each model's response to its prompt. A terminal shows the responses as they grow."""
        self._turns += 1
        settings, seed = self.config.eval, request_seed(self.config.run.seed, "chat", self._turns)
        sampling = Sampling(1, limit, settings.temperature, settings.top_p, seed)
        texts = dict.fromkeys(self.models, "")

        async def stream(model: str) -> None:
            async for text in self.stream(prompts[model], self.models[model], sampling):
                texts[model] += text
                shown.update(side_by_side(texts))

        with Live(console=self.console, refresh_per_second=8, redirect_stdout=False, redirect_stderr=False) as shown:
            async with asyncio.TaskGroup() as tasks:
                for model in self.models:
                    tasks.create_task(stream(model))
            if verify:
                verdicts = [self.verify(prompts[name].gold, text, prompts[name].grader) for name, text in texts.items()]
                shown.update(side_by_side(texts, [verdict.status.value for verdict in verdicts]))
        return texts


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
