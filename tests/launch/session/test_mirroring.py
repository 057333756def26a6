import shutil
from pathlib import Path

import pytest

from actors.mirror.mirror import POINTER
from actors.mirror.store import Store
from actors.storage.run_folder import RunFolder
from actors.storage.run_record import RunRecord
from conf.errors import BadInput
from conf.load import dump
from conf.schema import Config
from launch import run as run_command
from launch.session import mirroring
from launch.session.mirroring import bring_back, check_mirror, copy_ending


@pytest.fixture
def config(tmp_path: Path) -> Config:
    config = Config()
    config.run.name, config.run.folder = "mine", str(tmp_path / "runs")
    config.checkpoint.mirror = f"file://{tmp_path}/far"
    return config


def begin(config: Config) -> Path:
    folder = Path(config.run.folder) / config.run.name
    folder.mkdir(parents=True)
    RunFolder(folder).write_config(dump(config), "digest")
    return folder


def test_end_of_a_run_is_copied_and_brought_back(config: Config) -> None:
    check_mirror(config)
    folder = begin(config)
    (folder / "report.html").write_text("well done")
    assert copy_ending(config, folder) == f"Mirror: {config.checkpoint.mirror}/mine"
    identity = RunRecord(folder).identity()
    shutil.rmtree(folder)
    config.run.restore = config.checkpoint.mirror + "/"
    assert bring_back(config) == f"Restored {folder} from {config.checkpoint.mirror}/mine"
    assert (folder / "report.html").read_text() == "well done"
    assert RunRecord(folder).identity() == identity
    check_mirror(config)
    assert "is here: it goes on" in bring_back(config)


def test_same_command_begins_where_nothing_is_mirrored_yet(config: Config) -> None:
    config.run.restore = config.checkpoint.mirror
    assert bring_back(config).endswith("has no run yet: it begins")
    config.checkpoint.mirror = ""
    with pytest.raises(BadInput, match="there is no run at"):
        bring_back(config)
    assert not Path(config.run.folder, "mine").exists()


def test_other_run_of_the_name_is_not_lost(config: Config) -> None:
    folder = begin(config)
    copy_ending(config, folder)
    shutil.rmtree(folder)
    pointer = Store(config.checkpoint.mirror, "mine").document(POINTER)
    with pytest.raises(
        BadInput, match=r"another run 'mine', which would be lost; go on with that one by run\.restore="
    ):
        check_mirror(config)
    begin(config)
    with pytest.raises(BadInput, match="has another run 'mine', which would be lost"):
        check_mirror(config)
    config.run.restore = config.checkpoint.mirror
    with pytest.raises(BadInput, match="has another run 'mine' than"):
        bring_back(config)
    config.run.restore, config.run.overwrite = "", True
    check_mirror(config)
    assert Store(config.checkpoint.mirror, "mine").document(POINTER) == pointer


def test_what_cannot_be_written_to_is_refused(config: Config, tmp_path: Path) -> None:
    (tmp_path / "far").write_text("a file")
    with pytest.raises(BadInput, match=r"cannot be written to \((NotADirectory|FileExists)Error"):
        check_mirror(config)


def test_mirror_that_hangs_at_the_end_is_left(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    released = threading.Event()
    monkeypatch.setattr(mirroring, "ENDING_S", 0.05)
    monkeypatch.setattr(Store, "write", lambda *_: released.wait(30))
    assert "the end of the run is not in" in copy_ending(config, begin(config))
    released.set()


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("checkpoint.mirror=/mnt/disk", "give a URL such as s3://bucket/folder"),
        ("checkpoint.mirror=s3://key:secret@bucket/x", "without a key, which belongs into the environment"),
        ("checkpoint.mirror=gopher://x", "gopher://x: cannot be used here"),
        ("run.restore=file:///no/such/place", "there is no run at file:///no/such/place/quickstart"),
        ("run.trackers=[mlflow]", "run.trackers"),
    ],
)
def test_bad_input_is_one_line(setting: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command.main(["conf=quickstart", f"run.folder={tmp_path}/runs", "device=cpu", setting]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "runs" / "quickstart").exists()
