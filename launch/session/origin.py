"""Where a run comes from: what a person needs to make it again, kept in its folder."""

import shlex
import subprocess
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from conf.schema import PRIVATE
from launch.session.resume import among

PROJECT = Path(__file__).parents[2]

UNREPEATED = (*PRIVATE, "run.overwrite")
"""Settings that are not repeated: reports, which people share, show the command; and the last would delete the run."""

GIT_S = 10.0


def origin(arguments: Sequence[str], machine: str) -> dict[str, str]:
    """Return command, commit, date and machine of a run that begins now."""
    return {
        "command": command_line("run.py", arguments),
        "commit": commit(),
        "started": datetime.now().astimezone().isoformat(timespec="minutes"),
        "machine": machine,
    }


def command_line(program: str, arguments: Sequence[str]) -> str:
    """Return what a person types to have a program of launch/ do the same again."""
    kept = [argument for argument in arguments if not among(argument.partition("=")[0], UNREPEATED)]
    return f"python launch/{program} {shlex.join(kept)}".replace("'", '"')


def commit() -> str:
    """Return the commit of the project, with a plus if files differ from it; empty where git cannot tell."""

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(PROJECT), *arguments], capture_output=True, text=True, timeout=GIT_S, check=True
        )
        return done.stdout.strip()

    try:
        return git("rev-parse", "--short=10", "HEAD") + "+" * bool(git("status", "--porcelain", "-uno"))
    except (OSError, subprocess.SubprocessError):
        return ""
