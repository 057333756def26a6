import asyncio
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
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
from tests.conftest import ROOT


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
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"memory://{tmp_path.name}" if request.param == "memory" else f"file://{tmp_path}/far [a] way"


def advance(run: RunFolder, *updates: int, bytes_of_weights: int = 3000) -> None:
    """Make updates, with a checkpoint after the last of them."""
    for update in updates:
        run.append_metrics(update, {"reward/mean": update / 8})

    async def save() -> None:
        async with run.checkpoints.new(updates[-1], keep_last=1) as folder:
            (folder / "adapter").mkdir()
            (folder / "adapter" / "adapter_model.safetensors").write_bytes(os.urandom(bytes_of_weights))
            write_state(folder, CoordinatorState(version=updates[-1]))

    asyncio.run(save())


def restored(url: str, folder: Path) -> RunRecord:
    Remote(url, "mine").get(folder)
    return RunRecord(folder)


def sound(record: RunRecord, updates: int) -> bool:
    """Whether a run has so many updates, the last of them with a checkpoint that is as it was sealed."""
    latest = record.checkpoints.latest
    assert latest is not None
    return len(record.rows()) == updates and latest.name == f"update-{updates:06d}" and damage(latest) is None


def files_of(url: str) -> set[str]:
    remote = Remote(url, "mine")
    return {path.removeprefix(f"{remote._root}/") for path in remote._files.find(remote._root)}


def test_every_put_is_one_whole_copy_and_the_older_ones_go(
    run: RunFolder, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an evaluation in it, whose folder keeps its mark."""
    flushed = set[str]()
    monkeypatch.setattr(remote_checkpoints, "sync", lambda path: flushed.add(path.name))
    (run.path / "evaluation").mkdir()
    mark(run.path / "evaluation", "evaluation")
    for update in range(1, 6):
        advance(run, update)
        run.checkpoints.mark_best(update)
        Remote(url, "mine").put(run)
        again = restored(url, tmp_path / f"restored-{update}")
        assert sound(again, update)
    assert flushed > {"metrics.jsonl", "adapter", "adapter_model.safetensors"}
    assert (again.rows(), again.identity()) == (run.rows(), run.identity())
    assert again.checkpoints.best == again.checkpoints.latest
    assert is_marked(again.path / "evaluation", "evaluation")
    kept = {name.split("/")[2] for name in files_of(url) if "/checkpoints/" in name}
    assert kept == {"update-000004", "update-000005"}  # a reader may be at the one before


def test_copies_with_files_of_others_stay_and_leftovers_are_no_obstacle(run: RunFolder, tmp_path: Path) -> None:
    url, far, name = f"file://{tmp_path}/far", tmp_path / "far" / "mine", "0123456789abcdef"
    Remote(url, "mine").put(begin(tmp_path / "other"))
    (others,) = far.glob("copy-*")
    (far / POINTER).unlink()
    (far / f".{name}").write_text("")  # of a process that was killed while it tried
    remote = Remote(url, "mine")
    assert remote.try_out() is None
    cut = [far / f"copy-{run.identity()}-{number}" for number in "01"]  # of killed processes
    for folder in cut:
        folder.mkdir()
        (folder / "manifest.json").write_text('{"iden')
    remote.put(run)
    assert [folder.is_dir() for folder in cut] == [False, False]
    (with_thesis,) = {*far.glob("copy-*")} - {others}
    for folder in (cut[0], with_thesis):
        (folder / "samples" / "thesis.tex").parent.mkdir(parents=True)
        (folder / "samples" / "thesis.tex").write_text("years of work")
    (cut[0] / "manifest.json").write_text('{"iden')
    for _ in range(3):
        remote.put(run)
    left = {*far.glob("copy-*")}
    assert (len(left), {others, cut[0], with_thesis} < left) == (5, True)


@pytest.mark.parametrize("after", range(4))
def test_put_that_breaks_anywhere_leaves_the_copy_before(
    run: RunFolder, tmp_path: Path, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, left, put_file = f"file://{tmp_path}/far", [0] * after, LocalFileSystem.put_file

    def break_off(*given: Any, **named: Any) -> None:
        if not left:
            raise OSError(errno.ENOSPC, "far away")
        left.pop()
        put_file(*given, **named)

    advance(run, 1)
    Remote(url, "mine").put(run)
    advance(run, 2)
    with monkeypatch.context() as patched:
        patched.setattr(LocalFileSystem, "put_file", break_off)
        for left[:] in [[0] * after] * 2:
            with pytest.raises(OSError, match="far away"):
                Remote(url, "mine").put(run)
    assert len([*(tmp_path / "far" / "mine").iterdir()]) == 3, "the first failure has left nothing"
    assert sound(restored(url, tmp_path / "again"), 1)
    assert not [*run.path.glob(".*.tmp")]


PROCESS = """
import sys
from pathlib import Path
from microbudget_rl.actors.storage.remote import Remote
from microbudget_rl.actors.storage.run_folder import RunFolder
print("ready", flush=True)
Remote(sys.argv[2], "mine").put(RunFolder(Path(sys.argv[1])))
"""


@pytest.mark.long
@pytest.mark.parametrize("delay", [0.0, 0.02, 0.1])
def test_kill_in_the_middle_of_a_put(run: RunFolder, tmp_path: Path, delay: float) -> None:
    url = f"file://{tmp_path}/far"
    advance(run, 1)
    Remote(url, "mine").put(run)
    advance(run, 2, bytes_of_weights=5_000_000)
    command = [sys.executable, "-c", PROCESS, str(run.path), url]
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
    again = restored(url, tmp_path / "again")
    assert sound(again, len(again.rows()))
    Remote(url, "mine").put(run)
    assert sound(restored(url, tmp_path / "later"), 2)
    assert not [*run.path.glob(".*.tmp")]


def test_checkpoint_that_is_deleted_while_it_is_put_is_put_whole(
    run: RunFolder, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def seal_later(folder: Path) -> None:
        shutil.rmtree(run.checkpoints.path_of(1))
        seal(folder)

    advance(run, 1)
    seal = remote_checkpoints.seal
    monkeypatch.setattr(remote_checkpoints, "seal", seal_later)
    Remote(url, "mine").put(run)
    assert sound(restored(url, tmp_path / "again"), 1)


@pytest.mark.parametrize("content", [b"{}\n" * 10**6, None])
def test_damage_there_is_told(run: RunFolder, url: str, tmp_path: Path, content: bytes | None) -> None:
    advance(run, 1)
    remote = Remote(url, "mine")
    remote.put(run)
    (name,) = (name for name in files_of(url) if name.endswith("/metrics.jsonl"))
    if content is None:
        remote._files.rm_file(f"{remote._root}/{name}")
    else:
        remote._files.pipe_file(f"{remote._root}/{name}", content)
    with pytest.raises(BadInput, match=r"metrics\.jsonl .*restore it there"):
        restored(url, tmp_path / "again")
    assert not [path for path in tmp_path.iterdir() if "again" in path.name]


@pytest.mark.parametrize(
    "change",
    [{"folder": "../../x"}, {"folder": "copy-0"}, {"links": {"latest": "../x"}}, {"links": {"x": "update-000001"}}],
)
def test_names_that_lead_elsewhere_are_refused(tmp_path: Path, change: Any) -> None:
    state = {"format": FORMAT, "folder": "copy-0-01234567", "links": {}, **change}
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / POINTER).write_text(json.dumps(state))
    with pytest.raises(BadInput, match=r"remote\.json"):
        restored(f"file://{tmp_path}", tmp_path / "again")


def test_only_files_of_the_run_itself_are_copied(run: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("mine")
    (run.path / "metrics.jsonl").symlink_to(tmp_path / "secret")
    os.mkfifo(run.path / "pipe")
    for name in (".hidden", "adapters/a", "wandb/a", "ray-session"):
        (run.path / name).parent.mkdir(exist_ok=True)
        (run.path / name).write_text("")
    Remote(f"file://{tmp_path}/far", "mine").put(run)
    there = {name.partition("/")[2] for name in files_of(f"file://{tmp_path}/far") if name != POINTER}
    assert "problems.digest" in there
    assert not there & {"metrics.jsonl", "pipe", ".hidden", "adapters/a", "wandb/a", "ray-session"}


def test_every_checkpoint_is_copied_and_failures_are_counted_and_tried_again(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]

    class Slow(Remote):
        def put(self, run: RunRecord) -> None:
            now[0] += remote_checkpoints.PAUSE_S + 1
            super().put(run)

    monkeypatch.setattr(remote_checkpoints, "Remote", Slow)
    monkeypatch.setattr(remote_checkpoints, "time", SimpleNamespace(monotonic=lambda: now[0]))
    (tmp_path / "far").write_text("in the way")
    url = f"file://{tmp_path}/far"
    copies = RemoteCheckpoints(changed(Config(), {"run.name": "mine", "checkpoint.remote": url}), run)

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
    assert sound(restored(url, tmp_path / "again"), 1)
    advance(run, 2)
    monkeypatch.setattr(os, "link", lambda *_: os.readlink(os.sep))  # an OSError, as where there are no hard links
    assert look() == (0, False)
    assert sound(restored(url, tmp_path / "later"), 2)
    copy = json.loads((tmp_path / "far" / "mine" / POINTER).read_text())
    os.utime(run.checkpoints.path_of(2) / "manifest.json")  # as a rollback would make it anew
    assert [look(), look()] == [(0, False)] * 2
    assert json.loads((tmp_path / "far" / "mine" / POINTER).read_text()) != copy


@pytest.mark.parametrize(("given", "said"), [("gopher://x", "gopher"), ("s3://x/y", "s3fs"), ("memory://x", "no run")])
def test_url_that_cannot_be_used(given: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(BadInput, match=said):
        restored(given, tmp_path / "again")
