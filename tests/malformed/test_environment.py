"""A command needs no home folder, no UTF-8, no temporary folder and no sensible terminal."""

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.malformed.conftest import SENTENCE

pytestmark = pytest.mark.long

PLAN = ("-m", "launch.run", "conf=instruct", "plan=true", "device=cpu")
CUSTOM = (str(ROOT / "launch" / "run.py"), *PLAN[2:], "reward.custom=[{function: 'rewards:score'}]")
HELP = ("-m", "launch.run", "help", "learner")
MODEL = ("-m", "launch.run", "conf=base", "device=cpu", "run.folder=runs", "model.path=nobody/nothing")
RUN = ("-m", "launch.run", "conf=quickstart", "run.folder=runs")
UTF8 = ("-m", "launch.run", "conf=base", "model.path=é")

HERE, LIB = f"{{here}}:{ROOT}", f"{{here}}/lib:{ROOT}"
CACHE = {"HF_HOME": "{here}", "HF_HUB_OFFLINE": "1"}

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
GARBAGE = b"\xff\0"


def damaged_cache(here: Path) -> None:
    model = here / "hub" / "models--nobody--nothing"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_bytes(GARBAGE)
    (model / "snapshots").write_bytes(GARBAGE)


def nobody(here: Path) -> None:
    """Make the user one that the system does not know, as in some containers."""
    (here / "sitecustomize.py").write_text("import pwd\ndef none(uid): raise KeyError(uid)\npwd.getpwuid = none\n")


def modules_of_our_names(here: Path) -> None:
    """Make modules of a user: some in the working folder, some on his path, all of which his reward imports."""
    for name in ("conf/__init__", "actors", "learner", "launch", "lib/report", "lib/plan/__init__", "lib/samples"):
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / f"{name}.py").write_text("HIS = True\n")
    (here / "rewards.py").write_text(
        "import actors, conf, launch, learner, plan, report, samples\n"
        "HIS = [each.HIS for each in (actors, conf, launch, learner, plan, report, samples)]\n"
        "def score(prompt, response, gold):\n    return 1.0\n"
    )


ODD: dict[str, dict[str, Any]] = {
    "no home folder": {"environment": {"HOME": None, "XDG_CACHE_HOME": None}, "command": PLAN},
    "nobody": {"environment": {"HOME": None, "PYTHONPATH": HERE}, "command": MODEL, "said": "HOME", "prepare": nobody},
    "a setting in UTF-8 under an ASCII locale": {"environment": ASCII, "command": UTF8, "said": "LC_ALL=C.UTF-8"},
    "damaged hub cache": {"environment": CACHE, "command": MODEL, "said": "HF_HOME", "prepare": damaged_cache},
    "working folder that is gone": {"shell": 'mkdir gone; cd gone; rmdir "$PWD"; {}'},
    "no stdout": {"shell": "{} 1>&-"},
    "output on a full disk": {"shell": "{} 1>/dev/full", "said": ""},
    "modules of our names": {"environment": {"PYTHONPATH": LIB}, "command": CUSTOM, "prepare": modules_of_our_names},
    "no such cluster on a run": {"environment": {"RAY_ADDRESS": "x:y"}, "command": RUN, "said": "RAY_ADDRESS=x:y"},
    "terminal of control characters": {"environment": {"TERM": "\x1b", "TTY_COMPATIBLE": "x"}},
}
"""Arguments of the test. {here} in the environment is its folder."""


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_odd_environment(odd: dict[str, Any], tmp_path: Path):
    odd.get("prepare", lambda _: None)(tmp_path)
    given = {"PYTHONPATH": str(ROOT), **odd.get("environment", {})}
    environment = {key: value for key, value in os.environ.items() if key not in given}
    environment |= {key: value.replace("{here}", str(tmp_path)) for key, value in given.items() if value is not None}
    line = odd.get("shell", "{}").replace("{}", shlex.join([sys.executable, *odd.get("command", HELP)]))
    shell = ["/bin/bash", "-c", line]
    done = subprocess.run(shell, cwd=tmp_path, env=environment, capture_output=True, timeout=240, check=False)
    said = [part for part in done.stderr.decode().splitlines() if "setlocale" not in part]  # bash's own
    assert done.returncode == (2 if "said" in odd else 0), done.stderr
    assert len(said) == ("said" in odd), said
    assert odd.get("said", "") in " ".join(said)
    assert all(len(sentence) <= SENTENCE and sentence.isprintable() for sentence in said)
