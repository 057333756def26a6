import asyncio
import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.mirror import courier
from actors.mirror.courier import Courier
from actors.mirror.mirror import POINTER, Mirror
from actors.mirror.restore import restore
from actors.mirror.store import Store
from actors.storage.checkpoints import write_state
from actors.storage.files import damage
from actors.storage.run_folder import RunFolder
from actors.storage.run_record import RunRecord
from conf.errors import BadInput
from conf.load import dump
from conf.schema import Config


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "runs" / "mine")
    folder.path.mkdir(parents=True)
    folder.write_config(dump(Config()), "digest")
    folder.recover()
    return folder


@pytest.fixture(params=["file", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"memory://{tmp_path.name}" if request.param == "memory" else f"file://{tmp_path}/far away"


def advance(run: RunFolder, *updates: int, bytes_of_weights: int = 3000) -> None:
    """Make updates, with a checkpoint after the last of them."""
    for update in updates:
        run.append_metrics(update, {"reward/mean": update / 8})

    async def save() -> None:
        async with run.checkpoints.new(updates[-1], keep_last=1) as folder:
            (folder / "adapter").mkdir()
            (folder / "adapter" / "weights").write_bytes(os.urandom(bytes_of_weights))
            write_state(folder, {"version": updates[-1], "validation": None})

    asyncio.run(save())


def restored(url: str, folder: Path) -> RunRecord:
    restore(Store(url, "mine"), folder)
    return RunRecord(folder)


def test_what_is_restored_is_the_run(run: RunFolder, url: str, tmp_path: Path) -> None:
    advance(run, 1, 2)
    run.checkpoints.mark_best(2)
    Mirror(run, Store(url, "mine")).copy()
    again = restored(url, tmp_path / "elsewhere")
    assert again.rows() == run.rows()
    assert again.identity() == run.identity()
    assert again.checkpoints.latest is not None
    assert again.checkpoints.latest.name == again.checkpoints.best.name == "update-000002"  # type: ignore[union-attr]
    assert damage(again.checkpoints.latest) is None
    assert not list(run.path.glob(".mirror"))


def test_every_pass_is_one_state_and_the_older_ones_go(run: RunFolder, url: str, tmp_path: Path) -> None:
    store = Store(url, "mine")
    mirror = Mirror(run, store)
    for update in range(1, 6):
        advance(run, update)
        mirror.copy()
        again = restored(url, tmp_path / f"restored-{update}")
        assert [row["update"] for row in again.rows()] == list(range(1, update + 1))
        assert again.checkpoints.latest.name == f"update-{update:06d}"  # type: ignore[union-attr]
    folders = {name.split("/")[1] for name in store.names() if name.startswith("checkpoints/")}
    assert {name[:13] for name in folders} == {"update-000004", "update-000005"}  # a reader may be at the one before


def test_version_that_comes_again_is_another_one(run: RunFolder, url: str, tmp_path: Path) -> None:
    mirror = Mirror(run, Store(url, "mine"))
    advance(run, 1, 2)
    mirror.copy()
    run.return_to(0)
    advance(run, 1, 2)
    before = Store(url, "mine").document(POINTER)
    broken = Mirror(run, Breaking(url, "mine", after=1))
    with pytest.raises(OSError, match="far away"):
        broken.copy()
    assert Store(url, "mine").document(POINTER) == before
    assert damage(restored(url, tmp_path / "one").checkpoints.latest) is None  # type: ignore[arg-type]
    mirror.copy()
    there = restored(url, tmp_path / "two").checkpoints.latest
    assert (there / "adapter" / "weights").read_bytes() == (  # type: ignore[operator]
        run.path / "checkpoints" / "update-000002" / "adapter" / "weights"
    ).read_bytes()


class Breaking(Store):
    """A store that takes so many files and no more."""

    def __init__(self, url: str, name: str, after: int, number: int = errno.ENOSPC) -> None:
        super().__init__(url, name)
        self.left, self.number = after, number

    def write(self, name: str, content: Any) -> None:
        if self.left == 0:
            raise OSError(self.number, "far away")
        self.left -= 1
        super().write(name, content)


@pytest.mark.parametrize("after", range(8))
def test_pass_that_breaks_anywhere_leaves_the_state_before(run: RunFolder, tmp_path: Path, after: int) -> None:
    url = f"file://{tmp_path}/far"
    advance(run, 1)
    Mirror(run, Store(url, "mine")).copy()
    advance(run, 2)
    mirror = Mirror(run, Breaking(url, "mine", after))
    try:
        mirror.copy()
        expected = 2
    except OSError:
        expected = 1
    again = restored(url, tmp_path / "again")
    assert len(again.rows()) == expected
    assert damage(again.checkpoints.latest) is None  # type: ignore[arg-type]
    mirror._store.left = 100  # type: ignore[attr-defined]
    mirror.copy()
    assert len(restored(url, tmp_path / "later").rows()) == 2


def test_mirror_that_vanishes_and_comes_back(run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(courier, "LOOK_S", 0.01)
    monkeypatch.setattr(courier, "PAUSE_S", 0.01)
    store = Breaking(f"file://{tmp_path}/far", "mine", after=3, number=errno.ENOSPC)
    sent = Courier(Mirror(run, store), run.checkpoints)
    advance(run, 1)
    sent.start()
    said = []
    for _ in range(2):
        for _ in range(3000):
            if (passes := sent.passes()).news:
                break
            time.sleep(0.01)
        said.append(passes.news)
        store.left = 1000
    assert said == ["copying fails, and is tried again: OSError: [Errno 28] far away", "copying works again"]
    sent.stop()
    assert len(restored(f"file://{tmp_path}/far", tmp_path / "again").rows()) == 1


def test_no_faster_than_allowed(tmp_path: Path) -> None:
    started = time.perf_counter()
    Store(f"file://{tmp_path}/far", "mine", megabytes_per_s=20).write("weights", os.urandom(4_000_000))
    assert time.perf_counter() - started > 0.19


PROCESS = """
import sys
from pathlib import Path
from actors.mirror.mirror import Mirror
from actors.mirror.store import Store
from actors.storage.run_folder import RunFolder
run = RunFolder(Path(sys.argv[1]))
print("ready", flush=True)
Mirror(run, Store(sys.argv[2], "mine", 10)).copy()
"""


@pytest.mark.parametrize("delay", [0.0, 0.1, 0.25])
def test_kill_in_the_middle_of_a_pass(run: RunFolder, tmp_path: Path, delay: float) -> None:
    url = f"file://{tmp_path}/far"
    advance(run, 1)
    Mirror(run, Store(url, "mine")).copy()
    advance(run, 2, bytes_of_weights=5_000_000)
    command = [sys.executable, "-c", PROCESS, str(run.path), url]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
    again = restored(url, tmp_path / "again")
    assert len(again.rows()) == 1
    assert damage(again.checkpoints.latest) is None  # type: ignore[arg-type]
    store = Store(url, "mine")
    Mirror(run, store).copy()
    assert len(restored(url, tmp_path / "later").rows()) == 2
    pointer = store.document(POINTER)
    assert {name for name in store.names() if name.endswith(".part")} == set()
    assert {entry["object"] for entry in pointer["files"].values()} <= {*store.names()}


def test_damage_there_is_told(run: RunFolder, url: str, tmp_path: Path) -> None:
    advance(run, 1)
    store = Store(url, "mine")
    Mirror(run, store).copy()
    name = next(name for name in store.names() if name.endswith("-metrics.jsonl"))
    store.write(name, b"{}\n")
    with pytest.raises(BadInput, match="has another content than was written"):
        restored(url, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_path_that_leads_out_of_the_folder_is_refused(url: str, tmp_path: Path) -> None:
    store = Store(url, "mine")
    store.write("x", b"mine")
    entry = {"object": "x", "bytes": 4, "blake2b": ""}
    store.write(POINTER, json.dumps({"files": {"../../x": entry}, "links": {}}).encode())
    with pytest.raises(BadInput, match="outside of a run's folder"):
        restored(url, tmp_path / "again")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(("given", "said"), [("gopher://x", "gopher"), ("s3://x/y", "s3fs")])
def test_url_that_cannot_be_used(given: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(BadInput, match=said):
        Store(given, "mine")


def test_no_run_there(url: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="there is no run at"):
        restored(url, tmp_path / "again")


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket of a stand-in for S3 on loopback."""
    pytest.importorskip("s3fs", reason="pip install s3fs 'moto[server]'")
    moto = pytest.importorskip("moto.server", reason="pip install s3fs 'moto[server]'")
    server = moto.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "stand-in")
    import s3fs

    s3fs.S3FileSystem().mkdir("bucket")
    yield "s3://bucket/runs"
    server.stop()


@pytest.mark.slow
def test_object_store(run: RunFolder, bucket: str, tmp_path: Path) -> None:
    mirror = Mirror(run, Store(bucket, "mine"))
    for update in (1, 2, 3):
        advance(run, update, bytes_of_weights=12_000_000)
        mirror.copy()
    again = restored(bucket, tmp_path / "again")
    assert len(again.rows()) == 3
    assert damage(again.checkpoints.latest) is None  # type: ignore[arg-type]
    assert sum(name.endswith("weights") for name in Store(bucket, "mine").names()) == 2
    advance(run, 4)
    with pytest.raises(OSError, match="far away"):
        Mirror(run, Breaking(bucket, "mine", after=0)).copy()
    assert len(restored(bucket, tmp_path / "later").rows()) == 3
