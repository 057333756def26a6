"""`run.py conf=NAME dry_run=true`: what a run would work with, without starting it."""

from functools import partial

from rich.console import Console

from actors.models.files import load_tokenizer, locate
from conf.load import dump
from conf.schema import Config
from rewards.problems.loading import load

SHOWN = 2
"""Problems of each kind."""


def show_dry_run(config: Config, console: Console) -> None:
    """Print all settings and the first problems, chat template applied. Raises BadInput where a run would."""
    problems = load(config, load_tokenizer(locate(config.model), config.model.path))
    say = partial(console.print, soft_wrap=True, highlight=False, markup=False)
    say(dump(config))
    for kind, some in (("to train on", problems.train), ("held out", problems.heldout)):
        say(f"{len(some)} problems {kind}")
        for number, problem in enumerate(some[:SHOWN], start=1):
            say(f"--- {kind}, {number}: {len(problem.prompt_ids)} tokens, gold answer {problem.gold}")
            say(f"{problem.prompt}\n")
    say(f"Left out: {', '.join(f'{count} {reason}' for reason, count in problems.dropped.items()) or 'none'}")
