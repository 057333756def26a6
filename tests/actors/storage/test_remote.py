import asyncio
import errno
import hashlib
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

from actors.evaluation.folder import EvaluationFolder
from actors.evaluation.protocol import protocol_of
from actors.storage.checkpoints import write_state
from actors.storage.documents import EvaluationDocument
from actors.storage.files import damage
from actors.storage.remote import POINTER, Remote
from actors.storage.run_folder import RunFolder
from actors.storage.run_record import RunRecord
from actors.storage.state import CoordinatorState
from conf.errors import BadInput
from conf.load import dump
from conf.parsing import FORMAT
from conf.schema import Config
from tests.actors.virtual_run import NO_PROBLEMS
from tests.conftest import ROOT


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "runs" / "mine")
    folder.path.mkdir(parents=True)
    folder.write_config(dump(Config()), NO_PROBLEMS)
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


def test_every_put_is_one_state_and_the_older_ones_go(run: RunFolder, url: str, tmp_path: Path) -> None:
    for update in range(1, 6):
        advance(run, update)
        run.checkpoints.mark_best(update)
        Remote(url, "mine").put(run)
        again = restored(url, tmp_path / f"restored-{update}")
        assert sound(again, update)
    assert (again.rows(), again.identity()) == (run.rows(), run.identity())
    assert again.checkpoints.best == again.checkpoints.latest
    kept = {name.split("/")[2] for name in files_of(url) if "/checkpoints/" in name}
    assert kept == {"update-000004", "update-000005"}  # a reader may be at the one before


def test_version_that_comes_again_is_another_one(run: RunFolder, url: str, tmp_path: Path) -> None:
    def weights(of: RunRecord) -> bytes:
        assert of.checkpoints.latest
        return (of.checkpoints.latest / "adapter" / "adapter_model.safetensors").read_bytes()

    advance(run, 1, 2)
    Remote(url, "mine").put(run)
    run.return_to(0)
    advance(run, 1, 2)
    with pytest.raises(OSError, match="far away"):
        Breaking(url, after=1).put(run)
    assert sound(restored(url, tmp_path / "one"), 2)
    Remote(url, "mine").put(run)
    assert weights(restored(url, tmp_path / "two")) == weights(run)


def test_evaluation_in_the_run_goes_on_after_a_restore(run: RunFolder, url: str, tmp_path: Path) -> None:
    protocol = protocol_of(Config(), "nowhere", None)
    (run.path / "evaluation").mkdir()
    begun = EvaluationFolder(run.path / "evaluation")
    begun.begin(Config(), protocol)
    begun.write(EvaluationDocument(protocol=protocol), "")
    Remote(url, "mine").put(run)
    again = EvaluationFolder(restored(url, tmp_path / "again").path / "evaluation")
    assert again.begin(Config(), protocol) == []
    assert again.document() == begun.document()


class Breaking(Remote):
    """A remote that takes so many files and no more."""

    def __init__(self, url: str, after: int) -> None:
        super().__init__(url, "mine")
        self.left = after

    def _path(self, name: str) -> str:
        if name != POINTER and name != f"{POINTER}.tmp":
            if self.left == 0:
                raise OSError(errno.ENOSPC, "far away")
            self.left -= 1
        return super()._path(name)


@pytest.mark.parametrize("after", range(4))
def test_put_that_breaks_anywhere_leaves_the_state_before_and_nothing_behind(
    run: RunFolder, tmp_path: Path, after: int
) -> None:
    url = f"file://{tmp_path}/far"
    advance(run, 1)
    Remote(url, "mine").put(run)
    advance(run, 2)
    with pytest.raises(OSError, match="far away"):
        Breaking(url, after).put(run)
    assert sound(restored(url, tmp_path / "again"), 1)
    for _ in range(2):
        Remote(url, "mine").put(run)
    assert sound(restored(url, tmp_path / "later"), 2)
    assert (tmp_path / "far" / "mine").stat().st_mode & 0o777 == 0o700  # nobody else can see it
    state = json.loads((tmp_path / "far" / "mine" / POINTER).read_text())
    named = {f"{entry['place']}/{path}" for path, entry in state["files"].items()} | {*state["others"]}
    assert files_of(url) == named | {POINTER}


PROCESS = """
import sys
from pathlib import Path
from actors.storage import remote
from actors.storage.run_folder import RunFolder
remote.CHUNK = 1000
print("ready", flush=True)
remote.Remote(sys.argv[2], "mine").put(RunFolder(Path(sys.argv[1])))
"""


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


def test_checkpoint_that_is_deleted_while_it_is_put_is_put_whole(run: RunFolder, url: str, tmp_path: Path) -> None:
    class Slow(Remote):
        def _put(self, place: str, path: str, source: Any, before: Any) -> Any:
            if run.checkpoints.latest.name == "update-000001":  # type: ignore[union-attr]
                advance(run, 2)
            return super()._put(place, path, source, before)

    advance(run, 1)
    Slow(url, "mine").put(run)
    again = restored(url, tmp_path / "again")
    assert damage(again.checkpoints.latest) is None  # type: ignore[arg-type]
    assert again.checkpoints.latest.name == "update-000001"  # type: ignore[union-attr]


def test_damage_there_is_told(run: RunFolder, url: str, tmp_path: Path) -> None:
    advance(run, 1)
    remote = Remote(url, "mine")
    remote.put(run)
    name = next(name for name in files_of(url) if name.endswith("/metrics.jsonl"))
    remote._files.pipe_file(remote._path(name), b"{}\n" * 10**6)
    with pytest.raises(BadInput, match="has another content than was written"):
        restored(url, tmp_path / "again")
    assert not [path for path in tmp_path.iterdir() if "again" in path.name]


ENTRY = {"place": "0" * 16, "bytes": 4, "blake2b": ""}


@pytest.mark.parametrize(
    "change",
    [
        *({"files": {path: ENTRY}} for path in ("samples/../../../x", "/etc/x", "thesis.tex")),
        {"files": {"config.yaml": ENTRY | {"place": "../../x"}}},
        {"links": {"latest": "../../x"}},
        {"links": {"../../x": "update-000001"}},
        {"others": ["0000000000000000/../../x"]},
    ],
)
def test_names_that_lead_out_of_the_folders_are_refused(url: str, tmp_path: Path, change: Any) -> None:
    remote = Remote(url, "mine")
    (tmp_path / "runs").mkdir()
    remote._files.makedirs(remote._root, exist_ok=True)
    text, place = b"a: 1", "0" * 16
    config = {"place": place, "bytes": len(text), "blake2b": hashlib.blake2b(text).hexdigest()}
    remote._files.makedirs(f"{remote._root}/{place}", exist_ok=True)
    remote._files.pipe_file(f"{remote._root}/{place}/config.yaml", text)
    state = {"format": FORMAT, "identity": None, "files": {"config.yaml": config}, "links": {}, "others": [], **change}
    remote._files.pipe_file(remote._path(POINTER), json.dumps(state).encode())
    with pytest.raises(BadInput, match=r"remote\.json"):
        restored(url, tmp_path / "runs" / "again")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("at", ["file", "folder"])
def test_links_are_not_followed(run: RunFolder, tmp_path: Path, at: str) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "config.yaml").write_text("mine")
    advance(run, 1)
    url = f"file://{tmp_path}/far"
    Remote(url, "mine").put(run)
    (there,) = (tmp_path / "far" / "mine").glob("*/config.yaml")
    if at == "file":
        there.unlink()
        there.symlink_to(secret / "config.yaml")
    else:
        there.parent.rename(tmp_path / "aside")
        there.parent.symlink_to(secret)
    with pytest.raises(BadInput, match="leads elsewhere by a link"):
        restored(url, tmp_path / "again")
    (run.path / "events.jsonl").unlink()
    (run.path / "events.jsonl").symlink_to(secret / "config.yaml")
    Remote(f"file://{tmp_path}/other", "mine").put(run)
    assert not [name for name in files_of(f"file://{tmp_path}/other") if name.endswith("events.jsonl")]


@pytest.mark.parametrize(("given", "said"), [("gopher://x", "gopher"), ("s3://x/y", "s3fs"), ("memory://x", "no run")])
def test_url_that_cannot_be_used(given: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(BadInput, match=said):
        restored(given, tmp_path / "again")


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
    for update in (1, 2, 3):
        advance(run, update, bytes_of_weights=12_000_000)
        Remote(bucket, "mine").put(run)
    assert sound(restored(bucket, tmp_path / "again"), 3)
    assert sum(name.endswith("adapter_model.safetensors") for name in files_of(bucket)) == 2
    advance(run, 4)
    with pytest.raises(OSError, match="far away"):
        Breaking(bucket, after=5).put(run)
    assert sound(restored(bucket, tmp_path / "later"), 3)
