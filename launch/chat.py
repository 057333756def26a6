"""Talk to the base model and to what a run has trained, side by side.

    python launch/chat.py RUN_FOLDER [checkpoint=latest|best|update-000040]

Examples:

    python launch/chat.py runs/quickstart
    python launch/chat.py runs/first checkpoint=update-000040
    echo "/problem 3" | python launch/chat.py runs/quickstart

Both answer under the settings of the run's evaluation, in an engine as the run's. In the chat, /help lists the
commands, such as /problem 3, which poses a held-out problem and judges both answers, and /ask, which poses one of yours
in the same way. What is said without a command has neither the run's instructions nor its examples. Lines may come from
a pipe.
"""

import asyncio
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from rich.console import Console

from actors.messages import AdapterRef, Problem
from conf.arguments import run_and_options
from conf.command import PlainConsole, command, near
from conf.errors import BadInput
from launch.after.screen import off_screen
from launch.after.trained import LATEST, Trained, find_trained, talking
from launch.samples import choose, read_pairs, show

SHOWN_SAMPLES = 3
"""Answers that /samples shows."""


@command("chat.py", __doc__)
def main(arguments: list[str]) -> int:
    """Return the exit code: 0, 1 if the engine fails, 2 for bad input, 130 after Ctrl-C."""
    folder, given = run_and_options(arguments, {"checkpoint": ()})
    trained = find_trained(folder, given.get("checkpoint", LATEST))
    with off_screen("chat") as screen:
        return chat(trained, folder, PlainConsole(file=screen))


def chat(trained: Trained, folder: Path, console: Console) -> int:
    """Start an engine and talk until the input ends. Raises BadInput if this machine has no room for one."""
    config, share = talking(trained)
    share.bind()  # before torch is imported
    from transformers import AutoTokenizer

    from actors.rollout.vllm_engine import RolloutEngine
    from launch.after.conversation import Conversation
    from rewards.pool import VerifierPool
    from rewards.reward import reward_function

    console.print(f"Starting an engine for {near(trained.checkpoint)} …", soft_wrap=True)
    tokenizer = AutoTokenizer.from_pretrained(trained.model_path)
    adapter = AdapterRef(0, 0, str(trained.adapter))

    async def start() -> RolloutEngine:
        engine = RolloutEngine(config, trained.model_path, share)
        await engine.load(adapter)
        return engine

    with asyncio.Runner() as runner, VerifierPool(reward_function(trained.config), 1) as judge:
        engine = runner.run(start())
        try:
            console.print("Ready: /problem 1 poses a held-out problem, /ask one of yours, /help lists all commands.")
            Conversation(
                config,
                console,
                tokenizer,
                {"base": None, "trained": adapter},
                stream=engine.stream,
                judge=judge.verify,
                problems=cache(lambda: heldout(trained, tokenizer)),
                samples=lambda: show(choose(read_pairs(folder), "", "")[:SHOWN_SAMPLES], console),
            ).talk(runner)
        finally:
            runner.run(engine.close())
    return 0


def heldout(trained: Trained, tokenizer: object) -> Sequence[Problem]:
    """Return the held-out problems of a run. Raises BadInput if the data has others by now."""
    from rewards.problems.loading import load

    problems = load(trained.config, tokenizer)
    if trained.run.problems_digest() not in (None, problems.digest):
        raise BadInput(f"{trained.config.data.source} has other problems than the run was begun with: restore the data")
    return problems.heldout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
