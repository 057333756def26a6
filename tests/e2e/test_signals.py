"""Signals at random moments: every command ends with the signal's exit code, and leaves nothing."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from tests.conftest import ROOT
from tests.faults.conftest import GONE_S
from tests.json_lines import read_rows
from tests.trained_runs import write_trained

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

Start = Callable[..., subprocess.Popen[str]]

UPDATES = 2
"""Updates of a run that ends by itself."""

KINDS = {
    ("run", "start"): (8, 14.0),
    ("run", "training"): (4, 3.0),
    ("run", "end"): (4, 6.0),
    ("evaluate", "start"): (3, 20.0),
    ("chat", "start"): (2, 16.0),
    ("serve", "start"): (1, 30.0),
    ("doctor", "start"): (1, 30.0),
    ("sweep", "start"): (1, 14.0),
}
"""How many moments there are of each command, in how many seconds from its start, its first update or its last one."""


class Moment(NamedTuple):
    command: str
    phase: str
    seconds: float
    number: signal.Signals


def moments() -> list[Moment]:
    draw = random.Random(0)
    return [
        Moment(command, phase, round(draw.uniform(0.1, longest), 2), draw.choice([signal.SIGINT, signal.SIGTERM]))
        for (command, phase), (count, longest) in KINDS.items()
        for _ in range(count)
    ]


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty TMPDIR, whose path is short enough for sockets."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    monkeypatch.setenv("TMPDIR", str(folder))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def trained(boxing_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_trained(tmp_path_factory.mktemp("trained") / "mine", boxing_model, std=0.2)


@pytest.mark.parametrize("moment", moments(), ids=lambda it: f"{it.command}-{it.phase}-{it.seconds}-{it.number.name}")
def test_signal_has_its_exit_code_and_leaves_nothing(
    moment: Moment, start: Start, trained: Path, temporary: Path, tmp_path: Path
):
    """A command that is done may have its own exit code. A server's log may be on stderr before the signal."""
    name, log = f"{moment.command}-{moment.phase}-{moment.seconds}", tmp_path / "log"
    folder: Path = start.folder / name  # type: ignore[attr-defined]
    with log.open("w") as errors:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL, "stderr": errors}
        if moment.command in ("chat", "serve"):
            command = [sys.executable, str(ROOT / "launch" / f"{moment.command}.py"), str(trained)]
            process = subprocess.Popen(command, text=True, start_new_session=True, **pipes)  # type: ignore[call-overload]
        else:
            process = start(name, *settings(moment), program=moment.command, **pipes)
    awaited = {"start": 0, "training": 1, "end": UPDATES}[moment.phase]
    while process.poll() is None and len(read_rows(folder / "metrics.jsonl")) < awaited:
        time.sleep(0.05)
    time.sleep(moment.seconds)
    done, said = process.poll() is not None, log.stat().st_size
    process.send_signal(moment.number)
    process.communicate()
    code = process.returncode if process.returncode >= 0 else 128 - process.returncode  # as a shell has it
    lines = log.read_text()[said:].splitlines()
    left = sorted(path.name for path in temporary.rglob("*"))
    alive = survivors(process.pid)
    facts = (moment.command, f"{moment.phase} + {moment.seconds} s", moment.number.name, code, len(lines), left, alive)
    print(f"| {' | '.join(map(str, facts))} |{' done before' if done else ''}")
    summary = folder / "summary.json"
    done = done or (summary.exists() and json.loads(summary.read_text())["status"] == "completed")
    assert code in (128 + moment.number, *([0] if done else [])), lines
    assert len(lines) <= 1, lines
    assert left == []
    assert alive == []


def test_refused_run_leaves_nothing_of_a_ray_that_is_starting(start: Start, temporary: Path):
    process = start("refused", "rollout.max_prompt_tokens=4")  # found by the tokenizer, while Ray starts
    output, _ = process.communicate()
    assert process.returncode == 2, output
    assert "prompt over rollout.max_prompt_tokens" in output
    assert [*temporary.iterdir()] == survivors(process.pid) == []
    assert not (start.folder / "refused").exists()  # type: ignore[attr-defined]


def settings(moment: Moment) -> list[str]:
    given = [f"budget.updates={UPDATES}"] if moment.phase == "end" else []
    if moment.command == "evaluate":
        given = ["benchmarks=[heldout]", "n=8"]
    if moment.command == "sweep":
        given = ["lora.rank=[4,8]"]
    return [*given, "budget.minutes=30"]


def survivors(session: int) -> list[str]:
    """Return the names of a session's processes that outlive it."""

    def belongs(process: psutil.Process) -> bool:
        try:
            return os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE
        except (ProcessLookupError, psutil.NoSuchProcess):
            return False

    _, alive = psutil.wait_procs([each for each in psutil.process_iter() if belongs(each)], timeout=GONE_S)
    return [process.name() for process in alive if belongs(process)]
