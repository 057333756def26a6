import errno
import os
from pathlib import Path

import pytest
from safetensors import SafetensorError

from actors.storage.files import disk_trouble


@pytest.mark.parametrize(
    ("number", "remedy"), [(errno.ENOSPC, "make room there"), (errno.EROFS, "make it writable again")]
)
def test_path_and_remedy_are_told(number: int, remedy: str, tmp_path: Path) -> None:
    file, text = str(tmp_path / "spent.json"), os.strerror(number)
    told = f"nothing can be written to {{}} ({text}): {remedy}, then give the same command"
    assert disk_trouble(tmp_path, OSError(number, text, file)) == told.format(file)
    assert disk_trouble(tmp_path, OSError(number, text)) == told.format(tmp_path)
    rust = SafetensorError(f"Error while serializing: I/O error: {text} (os error {number})")
    assert disk_trouble(tmp_path, rust) == told.format(tmp_path)


def test_other_errors_are_no_trouble_of_the_disk(tmp_path: Path) -> None:
    assert disk_trouble(tmp_path, FileNotFoundError(errno.ENOENT, "No such file", "gone")) is None
    assert disk_trouble(tmp_path, RuntimeError("28")) is None


def test_folder_that_is_gone_explains_every_error(tmp_path: Path) -> None:
    told = disk_trouble(tmp_path / "run", RuntimeError("no adapter"))
    assert told is not None
    assert told.startswith(f"the run folder {tmp_path / 'run'} is gone")


def test_folder_that_is_gone_is_seen_where_a_process_has_made_a_part_of_it_again(tmp_path: Path) -> None:
    missing = FileNotFoundError(errno.ENOENT, "No such file or directory", str(tmp_path / "samples" / "update-1.jsonl"))
    (tmp_path / "adapters").mkdir()
    told = disk_trouble(tmp_path, missing)
    assert told is not None
    assert told.startswith(f"the run folder {tmp_path} is gone")
    (tmp_path / "config.yaml").touch()
    assert disk_trouble(tmp_path, missing) is None
