import asyncio
import json
import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fsspec.implementations.local import LocalFileSystem

from microbudget_rl.actors.storage import remote as remote_checkpoints
from microbudget_rl.actors.storage.checkpoints import write_state
from microbudget_rl.actors.storage.documents import CoordinatorState
from microbudget_rl.actors.storage.files import damage
from microbudget_rl.actors.storage.folders import is_marked, mark
from microbudget_rl.actors.storage.remote import POINTER, Remote, RemoteCheckpoints
from microbudget_rl.actors.storage.run_folder import RunFolder
from microbudget_rl.actors.storage.run_record import RunRecord
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.load import dump
from microbudget_rl.conf.parsing import FORMAT
from microbudget_rl.conf.schema import Config
from microbudget_rl.conf.settings import changed
from tests.actors.virtual_run import NO_PROBLEMS


def begin(folder: Path) -> RunFolder:
    run = RunFolder(folder)
    run.path.mkdir(parents=True)
    run.write_config(dump(Config()), NO_PROBLEMS)
    run.recover()
    return run


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return begin(tmp_path / "runs" / "mine")


@pytest.fixture(params=["file", "memory"])
def remote(request: pytest.FixtureRequest, tmp_path: Path) -> Remote:
    return Remote(
        f"memory://{tmp_path.name}" if request.param == "memory" else f"file://{tmp_path}/far [a] way", "mine"
    )


@pytest.fixture
def far(tmp_path: Path) -> Remote:
    """The remote folder `far/mine`."""
    return Remote(f"file://{tmp_path}/far", "mine")


def advance(run: RunFolder, update: int) -> None:
    """Make an update, with a checkpoint."""
    run.append_metrics(update, {"reward/mean": update / 8})

    async def save() -> None:
        async with run.checkpoints.new(update, keep_last=1) as folder:
            (folder / "adapter").mkdir()
            (folder / "adapter" / "adapter_model.safetensors").write_bytes(os.urandom(3000))
            write_state(folder, CoordinatorState(version=update))

    asyncio.run(save())


def restored(remote: Remote, folder: Path) -> RunRecord:
    remote.get(folder)
    return RunRecord(folder)


def sound(record: RunRecord, updates: int) -> bool:
    """Whether a run has so many updates, the last of them with a checkpoint that is as it was sealed."""
    latest = record.checkpoints.latest
    assert latest is not None
    return len(record.rows()) == updates and latest.name == f"update-{updates:06d}" and damage(latest) is None


def files_of(remote: Remote) -> set[str]:
    return {path.removeprefix(f"{remote._root}/") for path in remote._files.find(remote._root)}


def test_every_put_is_one_whole_copy_and_the_older_ones_go(
    run: RunFolder, remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """With an evaluation in it, whose folder keeps its mark."""
    flushed = set[str]()
    monkeypatch.setattr(remote_checkpoints, "sync", lambda path: flushed.add(path.name))
    (run.path / "evaluation").mkdir()
    mark(run.path / "evaluation", "evaluation")
    for update in range(1, 6):
        advance(run, update)
        run.checkpoints.mark_best(update)
        remote.put(run)
        again = restored(remote, tmp_path / f"restored-{update}")
        assert sound(again, update)
    assert flushed > {"metrics.jsonl", "adapter", "adapter_model.safetensors"}
    assert (again.rows(), again.identity()) == (run.rows(), run.identity())
    assert again.checkpoints.best == again.checkpoints.latest
    assert is_marked(again.path / "evaluation", "evaluation")
    kept = {name.split("/")[2] for name in files_of(remote) if "/checkpoints/" in name}
    assert kept == {"update-000004", "update-000005"}  # a reader may be at the one before


def test_copies_with_files_of_others_stay_and_leftovers_do_not_matter(run: RunFolder, far: Remote, tmp_path: Path):
    folder = tmp_path / "far" / "mine"
    far.put(begin(tmp_path / "other"))
    (others,) = folder.glob("copy-*")
    (folder / POINTER).unlink()
    (folder / ".0123456789abcdef").write_text("")  # of a process that was killed while it tried
    assert far.try_out() is None
    cut = [folder / f"copy-{run.identity()}-{number}" for number in "01"]  # of killed processes
    for copy in cut:
        copy.mkdir()
        (copy / "manifest.json").write_text('{"iden')
    far.put(run)
    assert not any(copy.exists() for copy in cut)
    (with_thesis,) = {*folder.glob("copy-*")} - {others}
    for copy in (cut[0], with_thesis):
        (copy / "samples").mkdir(parents=True)
        (copy / "samples" / "thesis.tex").write_text("years of work")
    (cut[0] / "manifest.json").write_text('{"iden')
    for _ in range(3):
        far.put(run)
    left = {*folder.glob("copy-*")}
    assert (len(left), {others, cut[0], with_thesis} < left) == (5, True)


@pytest.mark.parametrize("killed", [False, pytest.param(True, marks=pytest.mark.long)])
@pytest.mark.parametrize("after", range(4))
def test_put_that_breaks_anywhere_leaves_the_copy_before(
    run: RunFolder, far: Remote, tmp_path: Path, after: int, killed: bool, monkeypatch: pytest.MonkeyPatch
):
    """killed: whether the process ends there, instead of an error."""
    left, put_file = [0], LocalFileSystem.put_file

    def break_off(*given: Any, **named: Any) -> None:
        if not left:
            if killed:
                Path(given[2]).write_text("half of it")
                os._exit(9)
            raise OSError("far away")
        left.pop()
        put_file(*given, **named)

    advance(run, 1)
    far.put(run)
    advance(run, 2)
    with monkeypatch.context() as patched:
        patched.setattr(LocalFileSystem, "put_file", break_off)
        for left[:] in [[0] * after] * 2:
            if not killed:
                with pytest.raises(OSError, match="far away"):
                    far.put(run)
            elif process := os.fork():
                assert os.waitpid(process, 0)[1] == 9 << 8
            else:
                far.put(run)
    assert killed or len([*(tmp_path / "far" / "mine").iterdir()]) == 3, "the first failure has left nothing"
    assert sound(restored(far, tmp_path / "again"), 1)
    far.put(run)
    assert sound(restored(far, tmp_path / "later"), 2)
    assert not [*run.path.glob(".*.tmp")]


def test_checkpoint_that_is_deleted_while_it_is_put_is_put_whole(
    run: RunFolder, remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def seal_later(folder: Path) -> None:
        shutil.rmtree(run.checkpoints.path_of(1))
        seal(folder)

    advance(run, 1)
    seal = remote_checkpoints.seal
    monkeypatch.setattr(remote_checkpoints, "seal", seal_later)
    remote.put(run)
    assert sound(restored(remote, tmp_path / "again"), 1)


@pytest.mark.parametrize("content", [b"{}\n" * 10**6, None])
def test_damage_there_is_told(run: RunFolder, remote: Remote, tmp_path: Path, content: bytes | None):
    advance(run, 1)
    remote.put(run)
    (name,) = (name for name in files_of(remote) if name.endswith("/metrics.jsonl"))
    if content is None:
        remote._files.rm_file(f"{remote._root}/{name}")
    else:
        remote._files.pipe_file(f"{remote._root}/{name}", content)
    with pytest.raises(BadInput, match=r"metrics\.jsonl .*restore it there"):
        restored(remote, tmp_path / "again")
    assert not [path for path in tmp_path.iterdir() if "again" in path.name]


@pytest.mark.parametrize(
    "change",
    [{"folder": "../../x"}, {"folder": "copy-0"}, {"links": {"latest": "../x"}}, {"links": {"x": "update-000001"}}],
)
def test_names_that_lead_elsewhere_are_refused(far: Remote, tmp_path: Path, change: Any):
    state = {"format": FORMAT, "folder": "copy-0-01234567", "links": {}, **change}
    (tmp_path / "far" / "mine").mkdir(parents=True)
    (tmp_path / "far" / "mine" / POINTER).write_text(json.dumps(state))
    with pytest.raises(BadInput, match=r"remote\.json"):
        restored(far, tmp_path / "again")


def test_only_files_of_the_run_itself_are_copied(run: RunFolder, far: Remote, tmp_path: Path):
    (tmp_path / "secret").write_text("mine")
    (run.path / "metrics.jsonl").symlink_to(tmp_path / "secret")
    os.mkfifo(run.path / "pipe")
    for name in (".hidden", "adapters/a", "wandb/a", "ray-session"):
        (run.path / name).parent.mkdir(exist_ok=True)
        (run.path / name).write_text("")
    far.put(run)
    there = {name.partition("/")[2] for name in files_of(far) if name != POINTER}
    assert "problems.digest" in there
    assert not there & {"metrics.jsonl", "pipe", ".hidden", "adapters/a", "wandb/a", "ray-session"}


def test_every_checkpoint_is_copied_and_failures_are_counted_and_tried_again(
    run: RunFolder, far: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    now = [0.0]

    class Slow(Remote):
        def put(self, run: RunRecord) -> None:
            now[0] += remote_checkpoints.PAUSE_S + 1
            super().put(run)

    monkeypatch.setattr(remote_checkpoints, "Remote", Slow)
    monkeypatch.setattr(remote_checkpoints, "time", SimpleNamespace(monotonic=lambda: now[0]))
    (tmp_path / "far").write_text("in the way")
    settings = {"run.name": "mine", "checkpoint.remote": f"file://{tmp_path}/far"}
    copies = RemoteCheckpoints(changed(Config(), settings), run)

    def look() -> tuple[int, bool]:
        copies.look()
        copies.worker.wait(60)
        lost, reason = copies.worker.losses()
        return lost, "far" in reason

    assert look() == (0, False)
    advance(run, 1)
    assert [look(), look()] == [(1, True), (0, False)]
    now[0] += remote_checkpoints.PAUSE_S
    assert look() == (1, False)
    now[0] += remote_checkpoints.PAUSE_S
    (tmp_path / "far").unlink()
    assert [look(), look()] == [(0, False)] * 2
    assert sound(restored(far, tmp_path / "again"), 1)
    advance(run, 2)
    monkeypatch.setattr(os, "link", lambda *_: os.readlink(os.sep))  # an OSError, as where there are no hard links
    assert look() == (0, False)
    assert sound(restored(far, tmp_path / "later"), 2)
    copy = json.loads((tmp_path / "far" / "mine" / POINTER).read_text())
    os.utime(run.checkpoints.path_of(2) / "manifest.json")  # as a rollback would make it anew
    assert [look(), look()] == [(0, False)] * 2
    assert json.loads((tmp_path / "far" / "mine" / POINTER).read_text()) != copy


@pytest.mark.parametrize(("given", "said"), [("gopher://x", "gopher"), ("s3://x/y", "s3fs"), ("memory://x", "no run")])
def test_url_that_cannot_be_used(given: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(BadInput, match=said):
        restored(Remote(given, "mine"), tmp_path / "again")
