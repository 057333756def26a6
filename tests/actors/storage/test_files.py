import errno
import os
import resource
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from safetensors import SafetensorError

from microbudget_rl.actors.storage.documents import Event, MetricsRow
from microbudget_rl.actors.storage.files import (
    MANIFEST,
    append_row,
    damage,
    disk_trouble,
    drop_half_line,
    lock,
    private_folder,
    read_rows,
    replace_text,
    seal,
)
from microbudget_rl.conf.errors import BadInput


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "weights").write_bytes(b"weights")
    (tmp_path / "facts.json").write_text("{}")
    seal(tmp_path)
    return tmp_path


def test_every_kind_of_damage_is_named(sealed: Path):
    assert damage(sealed) is None
    weights, manifest = sealed / "adapter" / "weights", sealed / MANIFEST
    for content, said in ((b"weighty", "another content"), (b"weight", "6 bytes instead of 7"), (None, "missing")):
        weights.unlink() if content is None else weights.write_bytes(content)
        assert said in str(damage(sealed))
        assert "adapter/weights" in str(damage(sealed))
    for nothing in ('{"adapter', "[1]"):
        manifest.write_text(nothing)
        assert f"{MANIFEST} cannot be read" in str(damage(sealed))
    weights.write_bytes(b"weights")
    for nothing in ("{}", '{"facts.json": {}}'):
        manifest.write_text(nothing)
        assert "adapter/weights is not in" in str(damage(sealed))
    seal(sealed)
    assert damage(sealed) is None


def row(update: int) -> MetricsRow:
    return MetricsRow(update=update)


def test_row_that_is_only_half_written_is_not_read_and_can_be_dropped(tmp_path: Path):
    file = tmp_path / "rows.jsonl"
    assert read_rows(file, MetricsRow) == []
    append_row(file, row(1))
    with file.open("a") as lines:
        lines.write('{"upd')
    assert read_rows(file, MetricsRow) == [row(1)]
    drop_half_line(file)
    assert file.read_text() == '{"update": 1}\n'


LITTLE_ROOM = 100


@contextmanager
def little_room() -> Iterator[None]:
    """No file may grow beyond LITTLE_ROOM bytes: a write that would is cut off there, as on a disk that runs full.

    The limit is that of the process, the file that pytest's output may go to included: only for what cannot print.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LITTLE_ROOM, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_row_that_does_not_fit_leaves_nothing_of_itself(tmp_path: Path):
    file = tmp_path / "rows.jsonl"
    append_row(file, row(1))
    with pytest.raises(OSError, match="File too large") as caught, little_room():
        append_row(file, Event(update=1, event="died", detail="a" * LITTLE_ROOM))
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(file))
    append_row(file, row(2))
    assert read_rows(file, MetricsRow) == [row(1), row(2)]


def test_file_is_replaced_as_a_whole_or_stays(tmp_path: Path):
    file = tmp_path / "state.json"
    replace_text(file, "older")
    replace_text(file, "old")
    with pytest.raises(OSError, match="File too large") as caught, little_room():
        replace_text(file, "a" * (LITTLE_ROOM + 1))
    assert caught.value.filename == str(tmp_path / ".state.json.tmp")
    assert file.read_text() == "old"


def test_row_is_on_disk_once_it_is_appended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    flushed: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: flushed.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    append_row(tmp_path / "rows.jsonl", row(1))
    assert flushed == [str(tmp_path / "rows.jsonl")]


@pytest.mark.parametrize(("number", "remedy"), [(errno.ENOSPC, "make room"), (errno.EROFS, "make it writable")])
def test_disk_trouble_has_path_and_remedy(number: int, remedy: str, tmp_path: Path):
    file, text = str(tmp_path / "spent.json"), os.strerror(number)
    rust = SafetensorError(f"Error while serializing: I/O error: {text} (os error {number})")
    for error, path in ((OSError(number, text, file), file), (OSError(number, text), str(tmp_path)), (rust, text)):
        told = str(disk_trouble(tmp_path, error))
        assert path in told
        assert remedy in told
    for other in (FileNotFoundError(errno.ENOENT, "No such file", "gone"), RuntimeError("28")):
        assert disk_trouble(tmp_path, other) is None


def test_a_full_folder_for_temporary_files_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (full := tmp_path / "full").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(full))
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=0 if path == full else 1))
    assert str(full) in str(disk_trouble(tmp_path, SafetensorError("No space left on device (os error 28)")))


def test_folder_that_is_gone_explains_every_error(tmp_path: Path):
    """Also where a process has made a part of it again."""
    assert f"{tmp_path / 'run'} is gone" in str(disk_trouble(tmp_path / "run", RuntimeError("no adapter")))
    missing = FileNotFoundError(errno.ENOENT, "No such file or directory", str(tmp_path / "samples" / "update-1.jsonl"))
    (tmp_path / "adapters").mkdir()
    assert "is gone" in str(disk_trouble(tmp_path, missing))
    (tmp_path / "config.yaml").touch()
    assert disk_trouble(tmp_path, missing) is None


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the user's own temporary folder is to be, in one for all."""
    tmp_path.chmod(0o777)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path / f"mbrl-{os.getuid()}"


def test_folders_are_of_the_user_alone(place: Path):
    descriptor = lock(place.parent / "run")
    assert descriptor is not None
    os.close(descriptor)
    assert (place.parent / "run").stat().st_mode & 0o777 == 0o700
    assert private_folder() == private_folder() == place
    assert place.stat().st_mode & 0o777 == 0o700
    assert private_folder(str(place)) == place


@pytest.mark.parametrize("trap", ["open folder", "link", "link to nowhere", "file"])
def test_what_somebody_else_may_have_put_there_is_not_followed(place: Path, tmp_path: Path, trap: str):
    elsewhere = tmp_path / "elsewhere"
    if trap == "open folder":
        place.mkdir(mode=0o700)
        place.chmod(0o770)
    elif trap == "file":
        place.write_text("")
    else:
        if trap == "link":
            elsewhere.mkdir(mode=0o700)
        place.symlink_to(elsewhere)
    with pytest.raises(BadInput, match="is not a folder of yours alone: remove it, or set TMPDIR"):
        private_folder()
