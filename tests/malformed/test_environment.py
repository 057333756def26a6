"""A command needs no home folder, no UTF-8, no temporary folder and no sensible terminal."""

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.malformed.commands import SENTENCE

ROOT = Path(__file__).parents[2]

PLAN = ("-m", "launch.run", "conf=instruct", "plan=true", "device=cpu")
SCRIPT = (str(ROOT / "launch" / "run.py"), "help", "learner")
HELP = ("-m", "launch.run", "help", "learner")
REFUSED = ("-m", "launch.run", "conf=nope")
MODEL = ("-m", "launch.run", "conf=base", "device=cpu", "run.folder=runs", "model.path=nobody/nothing")
RUN = ("-m", "launch.run", "conf=quickstart", "run.folder=runs")

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
GARBAGE = b"\xff\0"


@dataclass(frozen=True)
class Odd:
    """An odd environment, in which {here} is the test's folder.

    code: the command's exit code. word: a word of its sentence. shell: the command line around it.
    prepare: writes files that the environment names.
    """

    name: str
    environment: dict[str, str | None] = field(default_factory=dict)
    command: tuple[str, ...] = HELP
    code: int = 0
    word: str = ""
    shell: str = "{}"
    prepare: Callable[[Path], None] = lambda here: None


def damaged_cache(here: Path) -> None:
    model = here / "hub" / "models--nobody--nothing"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_bytes(GARBAGE)
    (model / "snapshots").write_bytes(GARBAGE)


def nobody(here: Path) -> None:
    """Make the user one that the system does not know, as in some containers."""
    (here / "sitecustomize.py").write_text("import pwd\ndef none(uid): raise KeyError(uid)\npwd.getpwuid = none\n")


def modules_of_our_names(here: Path) -> None:
    for name in ("conf", "actors", "learner", "rewards", "launch"):
        (here / name).mkdir()


ODD = (
    Odd("no home folder", {"HOME": None, "XDG_CACHE_HOME": None}, PLAN),
    Odd("nobody", {"HOME": None, "PYTHONPATH": f"{{here}}:{ROOT}"}, MODEL, 2, "HOME", prepare=nobody),
    Odd("temporary folder that is not there", {"TMPDIR": "/none", "HOME": "/none"}),
    Odd(
        "a setting in UTF-8 under an ASCII locale",
        ASCII,
        ("-m", "launch.run", "conf=base", "model.path=é"),
        2,
        "LC_ALL=C.UTF-8",
    ),
    Odd(
        "damaged hub cache",
        {"HF_HOME": "{here}", "HF_HUB_OFFLINE": "1"},
        MODEL,
        2,
        "HF_HOME",
        prepare=damaged_cache,
    ),
    Odd("working folder that is gone", shell='mkdir gone; cd gone; rmdir "$PWD"; {}'),
    Odd("no stdout", shell="{} 1>&-"),
    Odd("output on a full disk", code=2, shell="{} 1>/dev/full"),
    Odd("64 open files", shell="ulimit -n 64; {}"),
    Odd("docstrings stripped", {"PYTHONOPTIMIZE": "2"}),
    Odd("folders of our names on the path", {"PYTHONPATH": f"{{here}}:{ROOT}"}, SCRIPT, prepare=modules_of_our_names),
    Odd("GPUs that are no number", {"CUDA_VISIBLE_DEVICES": "["}, PLAN[:-1]),
    Odd("no such cluster on a run", {"RAY_ADDRESS": "x:y"}, RUN, 2, word="RAY_ADDRESS=x:y"),
    Odd("terminal of control characters", {"TERM": "\x1b", "TTY_COMPATIBLE": "x"}),
)


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: odd.name)
def test_odd_environment(odd: Odd, tmp_path: Path) -> None:
    odd.prepare(tmp_path)
    given = {"PYTHONPATH": str(ROOT), **odd.environment}
    environment = {key: value for key, value in os.environ.items() if key not in given}
    environment |= {key: value.replace("{here}", str(tmp_path)) for key, value in given.items() if value is not None}
    line = odd.shell.replace("{}", shlex.join([sys.executable, *odd.command]))
    shell = ["/bin/bash", "-c", line]
    done = subprocess.run(shell, cwd=tmp_path, env=environment, capture_output=True, timeout=240, check=False)
    said = [part for part in done.stderr.decode().splitlines() if "setlocale" not in part]  # bash's own
    assert done.returncode == odd.code, done.stderr
    assert len(said) == (odd.code == 2), said
    assert odd.word in " ".join(said)
    assert all(len(sentence) <= SENTENCE and sentence.isprintable() for sentence in said)
