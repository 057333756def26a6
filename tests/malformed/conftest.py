"""Sound inputs, made once, of which a test damages a copy, and a call of a command as a shell would make it."""

import atexit
import contextlib
import hashlib
import importlib
import io
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from microbudget_rl.actors.storage.checkpoints import write_state
from microbudget_rl.actors.storage.documents import CoordinatorState
from microbudget_rl.actors.storage.files import seal
from microbudget_rl.conf.load import dump, load
from microbudget_rl.conf.parsing import FORMAT
from microbudget_rl.conf.schema import RewardConfig
from microbudget_rl.launch.hardware.machine import detect
from microbudget_rl.launch.plan.measurements import keep
from microbudget_rl.launch.plan.time import Calibration, Workload
from microbudget_rl.rewards.pool import VerifierPool
from microbudget_rl.rewards.weighted_sum import RewardFunction
from tests.conftest import write_tiny_model
from tests.json_lines import write_rows
from tests.run_folders import EVALUATION, PLASTICITY, evaluation, write_run
from tests.trained_runs import write_trained

SENTENCE = 1500
"""Most characters of a refusal, which a person reads on one screen."""

RUN, CHECKPOINT = "run", "checkpoints/update-000004"

MODULES = {"problems": "microbudget_rl.rewards.problems.__main__"}
"""Command → its module, where that is not the one of its name in launch/."""

EXPENSIVE: dict[str, tuple[str, Any]] = {
    "run": ("carry_out", 0),
    "evaluate": ("carry_out", "completed"),
    "export": ("export", 0),
    "serve": ("subprocess.call", 0),
}
"""Command → the function that is not called here, since a command that gets there accepts its input; its result."""

READERS = {
    "report": ("finished", ["{copy}"]),
    "samples": ("trained", ["{copy}"]),
    "export": ("trained", ["{copy}"]),
    "serve": ("trained", ["{copy}"]),
    "run": ("unfinished", ["run.folder={copy}", f"run.name={RUN}"]),
    "evaluate": ("unfinished", [f"adapter={{copy}}/{RUN}/checkpoints/latest", "n=1", "device=cpu", "plan=true"]),
    "problems": ("model", ["file:{data}", "model.path={copy}"]),
}
"""Command → the part of the stock that it reads a damaged copy of, and its arguments."""


class Stock:
    """A tiny model, rows of data, a run for reports, one with an adapter, and a folder with one that can be resumed."""

    def __init__(self, folder: Path) -> None:
        self.model, self.data, self.finished = folder / "model", folder / "sums.jsonl", folder / "finished"
        self.trained, self.unfinished = folder / "runs" / "trained", folder / "unfinished"
        write_tiny_model(self.model)
        rows = ({"problem": f"What is {number} + 5?", "answer": str(number + 5)} for number in range(16))
        write_rows(self.data, rows)
        write_run(self.finished, model=str(self.model), plasticity=PLASTICITY, updates=4)
        (self.finished / "evaluation").mkdir()
        document = {**EVALUATION, "protocol": {**EVALUATION["protocol"], "model": str(self.model)}}
        (self.finished / "evaluation" / "evaluation.json").write_text(json.dumps(document))
        write_trained(self.trained, self.model)
        run = shutil.copytree(self.trained, self.unfinished / RUN, symlinks=True)
        (run / "summary.json").unlink()
        config = load([*self.settings(), f"run.folder={self.unfinished}", f"run.name={RUN}"])
        (run / "config.yaml").write_text(dump(config))
        known = Calibration(start_s=40.0, workload=Workload(30.0, 9.0, 8.0, 0.2, 0.4), of="14 updates")
        keep(known, config, detect("cpu"))
        shutil.copy(self.finished / "metrics.jsonl", run)
        for name, document in {
            "eval-base.json": {**evaluation(2), "round_seconds": 3.0},
            "spent.json": {"spent_s": 300.0},
            "ledger.json": {"seconds": {"run": {"start": 9.0}}, "counts": {"tokens/useful": 900}},
            "events.jsonl": {"update": 2, "event": "rollout-0 died", "detail": "killed"},
        }.items():
            write_rows(run / name, [document])
        write_state(checkpoint := run / CHECKPOINT, CoordinatorState(version=4))
        facts = {"format": FORMAT, "version": 4, "steps": 4, "model": str(self.model), "dtype": "float32"}
        (checkpoint / "learner.json").write_text(json.dumps(facts))
        shutil.copy(checkpoint / "adapter" / "adapter_model.safetensors", checkpoint / "learner.safetensors")
        seal(checkpoint)

    def settings(self, *without: str) -> list[str]:
        """Return settings of a run on this stock, but for these."""
        found = f"""conf=base model.path={self.model} model.dtype=float32 data.source=file:{self.data} device=cpu
            lora.rank=4 lora.alpha=8 eval.problems=4 reward.workers=1 learner.problems_per_update=4
            dashboard.port=0""".split()
        return [word for word in found if word.partition("=")[0] not in without]

    def reading(self, command: str, place: Path, damage: Callable[[Path], None]) -> list[str]:
        """Damage a copy of what a command reads. Return the command's arguments."""
        kind, arguments = READERS[command]
        copy = shutil.copytree(getattr(self, kind), place / "copy", symlinks=True)
        damage(copy)
        own = {"run": self.settings(), "problems": self.settings("model.path", "data.source")}.get(command, [])
        names = {"copy": copy, "data": self.data}
        return [*(re.sub(r"\{(\w+)\}", lambda name: str(names[name[1]]), word) for word in arguments), *own]


@pytest.fixture(scope="session")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Stock:
    return Stock(tmp_path_factory.mktemp("stock"))


def check(command: str, arguments: list[str], place: Path, refused: bool | None = None) -> None:
    """Call a command in a folder. It is accepted or refused in one sentence, and a refusal changes no file.

    refused: whether it has to be, None where either will do.
    """
    before = files(place)
    with contextlib.chdir(place):
        code, said = call(command, *arguments)
    assert code in ((0, 2) if refused is None else (2,)), said
    if code == 2:
        lines = said.removesuffix("\n").split("\n")
        assert len(said) <= SENTENCE, said
        assert all(line.strip() and line.isprintable() for line in lines), said
        assert len(lines) == 1 or not refused, said
    after = files(place)
    assert [name for name, content in before.items() if after.get(name) != content and code == 2] == []


def call(command: str, *arguments: str) -> tuple[int, str]:
    """Run a command until it ends or accepts its input. Return its exit code and its text on stderr."""
    name, err = MODULES.get(command, f"launch.{command}"), io.StringIO()
    main = importlib.import_module(name).main
    with contextlib.ExitStack() as kept, pytest.MonkeyPatch.context() as patched:
        for each in (patch.dict(os.environ), patch.object(sys, "path", [*sys.path]), contextlib.chdir(".")):
            kept.enter_context(each)
        patched.setattr("microbudget_rl.rewards.problems.loading.VerifierPool", kept_pool)
        patched.setattr("microbudget_rl.launch.run.check_host", lambda *_: None)  # what else runs here is no matter
        patched.setattr("microbudget_rl.launch.run.ray_session", lambda *_, **__: contextlib.nullcontext())
        if command in EXPENSIVE:
            function, result = EXPENSIVE[command]
            patched.setattr(f"{name}.{function}", lambda *_, **__: result)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(err):
            try:
                return main(list(arguments)), err.getvalue()
            except SystemExit as told:
                return told.code if isinstance(told.code, int) else 1, err.getvalue()


def files(place: Path) -> dict[str, str]:
    """Return the content of everything under a folder, by path."""
    return {
        str(path.relative_to(place)): hashlib.blake2b(path.read_bytes()).hexdigest()
        if path.is_file()
        else f"{path.is_symlink()} {path.is_dir()}"
        for path in place.rglob("*")
    }


@cache
def one_pool() -> VerifierPool:
    """Return the pool of workers that all commands share here: starting one takes longer than most refusals."""
    pool = VerifierPool(RewardFunction(RewardConfig()), workers=1)
    atexit.register(pool._close)
    return pool


@contextlib.contextmanager
def kept_pool(*_: Any, **__: Any) -> Iterator[VerifierPool]:
    yield one_pool()
