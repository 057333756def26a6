"""Whatever is done in whatever order, a file that is not ours survives, and no link is followed."""

import asyncio
import contextlib
import json
import os
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from actors.evaluation.folder import EvaluationFolder
from actors.evaluation.protocol import protocol_of
from actors.messages import FilteredRow, Problem, ProblemSet
from actors.rollout.adapter_transfer import write_copy
from actors.runtime.ray_session import NOTE, clear_session, make_temporary
from actors.storage.checkpoints import write_state
from actors.storage.folders import MARK
from actors.storage.run_folder import RunFolder
from actors.storage.state import CoordinatorState
from conf.command import PlainConsole
from conf.errors import BadInput
from conf.load import load
from conf.settings import changed
from launch import export, reporting
from launch.__main__ import COMMANDS
from launch.bundled import FILES, provide
from launch.hardware.machine import detect
from launch.plan import calibration
from launch.plan.time import UNMEASURED
from launch.reporting import FOOTER
from launch.session.admission import begin, find_folder, take_over
from launch.session.remote_checkpoints import bring_back, check_remote, put_ending
from launch.sweep import claim
from rewards.problems import __main__ as problems

NEVER_OURS = ("thesis.tex", ".hidden", "config.yaml.bak", "update-000009", "safetensors", "metrics.jsonl.tmp")

PLACES = """
    mine mine/checkpoints mine/checkpoints/update-000001 mine/checkpoints/update-000002 mine/checkpoints/thesis
    mine/checkpoints/.update-000003.tmp mine/checkpoints/update-000001/adapter mine/adapters
    mine/adapters/policy-v1-r0 mine/samples mine/evaluation mine/evaluation/samples mine/tensorboard far far/mine
    far/mine/0123456789abcdef model .model.0123abcd.tmp copies/policy-v1-r0 exports exports/made sweep other
    other/checkpoints
""".split()  # noqa: SIM905
"""Folders of ours, in which files that are never ours may stand."""

QUICKSTART = load(["conf=quickstart"])


class World:
    """A run `mine` with a checkpoint, an evaluation and remote checkpoints, and what stands beside."""

    def __init__(self, root: Path) -> None:
        self.root = root
        own = {"run.name": "mine", "run.folder": str(root), "checkpoint.remote": f"file://{root}/far"}
        self.config = changed(QUICKSTART, own)
        self.run = RunFolder(root / "mine")
        self.begun = False
        self.secret = root / "secret"
        self.secret.mkdir()
        (self.secret / "precious").write_text("precious")

    def plant(self, place: str, name: str, link: bool) -> str | None:
        """Put a file where there is nothing of that name, or a link to others. Return what is in it."""
        file, content = self.root / place / name, uuid.uuid4().hex
        with contextlib.suppress(OSError):  # something else is in its way
            file.parent.mkdir(parents=True, exist_ok=True)
            if link:
                file.symlink_to(self.secret)
            elif not os.path.lexists(file):
                file.write_text(content)
                return content
        return None

    def contents(self) -> set[bytes]:
        return {file.read_bytes() for file in self.root.rglob("*") if file.is_file() and not file.is_symlink()}


@contextlib.contextmanager
def setting(world: World, **values: Any) -> Iterator[None]:
    """Change settings of a world, keys with __ for dots, and change them back."""
    before = world.config
    world.config = changed(before, {key.replace("__", "."): value for key, value in values.items()})
    try:
        yield
    finally:
        world.config = before


def start(world: World) -> None:
    begin(world.config, find_folder(world.config), ProblemSet((), (), {}))
    world.run.recover()
    world.begun = True


def start_again(world: World) -> None:
    with setting(world, run__overwrite=True):
        start(world)


def save(world: World) -> None:
    assert world.begun

    async def new() -> None:
        version = world.run.checkpoints.newest_until(100) + 1
        async with world.run.checkpoints.new(version, keep_last=1) as folder:
            write_copy({"adapter_model.safetensors": b"1"}, folder / "adapter", (1, 1))
            write_state(folder, CoordinatorState(version=version))
        world.run.append_metrics(version, {})

    asyncio.run(new())


def restore(world: World) -> None:
    with setting(world, run__name="other", run__restore=world.config.checkpoint.remote):
        (world.root / "far" / "other").symlink_to("mine")
        bring_back(world.config)


def put(world: World) -> None:
    with setting(world, run__overwrite=True):
        check_remote(world.config)
        put_ending(world.config, world.run.path)


def put_elsewhere(world: World) -> None:
    """Name the run's own parent, or a folder with other files, for remote checkpoints."""
    for url in (f"file://{world.root}", f"file://{world.run.path}/checkpoints"):
        with setting(world, checkpoint__remote=url), contextlib.suppress(BadInput):
            put(world)


def evaluate(world: World) -> None:
    folder = EvaluationFolder(world.run.evaluation_folder)
    with setting(world, run__overwrite=True):
        take_over(folder.path, "the evaluation")
        folder.begin(world.config, protocol_of(world.config, "nowhere", None))


def make_model(world: World) -> None:
    provide(world.root / "model", lambda folder: [(folder / name).touch() for name in FILES][-1])


def make_export(world: World) -> None:
    trained: Any = SimpleNamespace(
        run=world.run,
        checkpoint=Path("update-1"),
        model_path=str(world.secret),
        config=world.config,
        base_name="base",
    )
    export.export(trained, "adapter", "", str(world.root / "exports" / "made"), PlainConsole())


def compare(world: World) -> None:
    """Report the run and another one together."""
    text = FOOTER.decode()
    with pytest.MonkeyPatch.context() as patched:
        page: Any = SimpleNamespace(sweep_report=lambda _: SimpleNamespace(html=text, markdown=text), run_report=None)
        patched.setitem(sys.modules, "launch.reporting.page", page)
        patched.setattr(reporting, "read_together", lambda _: SimpleNamespace(folder=world.root))
        reporting.write(world.run.path, world.run.path)


def preview(world: World) -> None:
    problem, filtered = Problem("p", "1 + 1", (1,), "2"), FilteredRow("source", "duplicate", "1 + 1", "2")
    with pytest.MonkeyPatch.context() as patched, contextlib.chdir(world.root), open(os.devnull, "w") as nowhere:
        found = {"load_problems": ProblemSet((problem,), (), {"duplicate": 1}, (filtered,)), "load": QUICKSTART}
        for name, result in {**found, "load_tokenizer": None, "locate": None}.items():
            patched.setattr(problems, name, lambda *_, result=result: result)
        patched.setattr(tempfile, "tempdir", str(world.root))
        with contextlib.redirect_stdout(nowhere):
            assert problems.main(["file:problems-left-out.jsonl"]) == 0


def measure(world: World) -> None:
    with contextlib.suppress(BadInput):
        calibration.keep(UNMEASURED, world.config, detect("cpu"))


def crash(world: World) -> None:
    """Clear up after a session note that names a foreign folder, and after the run's own."""
    assert world.begun
    (world.run.path / NOTE).write_text(json.dumps({"temporary": str(world.secret), "number": "1"}))
    clear_session(world.run.path)
    make_temporary(world.run.path)
    clear_session(world.run.path)


def sweep(world: World) -> None:
    claim(SimpleNamespace(folder=world.root / "sweep", name="sweep", runs=()))  # type: ignore[arg-type]
    (world.root / "sweep" / "sweep.json").touch()
    (world.root / "sweep" / "report.html").write_text("")


ACTIONS: list[Callable[[World], Any]] = [
    *(start, start_again, save, put, restore, put_elsewhere, evaluate, make_model, make_export, crash, sweep),
    *(compare, preview, measure),
    lambda world: world.begun and world.run.return_to(0),
    lambda world: world.begun and world.run.drop_adapters(keep=()),
    lambda world: write_copy({"adapter_config.json": b"{}"}, world.root / "copies" / "policy-v1-r0", (1, 1)),
]


@pytest.fixture(autouse=True)
def exports_unverified(monkeypatch: pytest.MonkeyPatch) -> None:
    found = SimpleNamespace(write_verified=lambda *_: "")
    monkeypatch.setitem(sys.modules, "launch.after.artifact", found)  # type: ignore[arg-type]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("begun", [False, True])
def test_file_that_is_not_ours_survives_everything(place: str, begun: bool, tmp_path: Path) -> None:
    world = World(tmp_path)
    for action in (start, save, put, make_model) if begun else ():
        action(world)
    planted = [world.plant(place, name, link=bool(number % 2)) for number, name in enumerate(NEVER_OURS)]
    for action in ACTIONS:
        with contextlib.suppress(BadInput, OSError, AssertionError):
            action(world)
        assert [*world.secret.iterdir()] == [world.secret / "precious"], action
        assert {content.encode() for content in planted if content} | {b"precious"} <= world.contents(), action


WRITERS: dict[str, list[Callable[[World], Any]]] = {
    "run": [start, put, measure],
    "doctor": [measure],
    "sweep": [sweep],
    "evaluate": [evaluate],
    "report": [compare],
    "export": [make_export],
    "bundled": [make_model],
    "problems": [preview],
}
"""Command → its writes."""

READERS = ("samples", "push", "chat", "serve", "verify")
"""Commands that write nothing, or into temporary folders only, which Python makes for them."""


def test_all_commands_are_known() -> None:
    assert {*WRITERS, *READERS} == {*COMMANDS}


@pytest.mark.parametrize("command", WRITERS)
def test_whatever_a_command_writes_it_spares_what_has_that_name(command: str, tmp_path: Path) -> None:
    def carry_out(name: str, there: str = "", link: bool = False) -> tuple[World, str | None]:
        (tmp_path / name).mkdir()
        world = World(tmp_path / name)
        content = world.plant(".", there, link) if there else None
        for action in WRITERS[command]:
            with contextlib.suppress(BadInput, OSError):
                action(world)
        return world, content

    def paths(world: World) -> set[str]:
        return {path.relative_to(world.root).as_posix() for path in world.root.rglob("*")}

    made = paths(carry_out("fresh")[0]) - {"secret", "secret/precious"}
    assert made
    for number, there in enumerate(sorted(path for path in made if not path.endswith(MARK))):
        for link in (False, True):
            world, content = carry_out(f"{number}-{link}", there, link)
            assert {b"precious", *([content.encode()] if content else [])} <= world.contents(), there
            assert paths(world) >= {there, "secret/precious"}
