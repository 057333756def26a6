import shutil
from pathlib import Path

import pytest

from microbudget_rl.actors.storage.remote import Remote
from microbudget_rl.actors.storage.run_folder import RunFolder
from microbudget_rl.actors.storage.run_record import RunRecord
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.load import dump
from microbudget_rl.conf.schema import Config
from microbudget_rl.conf.settings import changed
from microbudget_rl.launch.session.remote_checkpoints import bring_back, check_remote, put_ending
from tests.actors.virtual_run import NO_PROBLEMS


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return changed(
        Config(),
        {"run.name": "mine", "run.folder": str(tmp_path / "runs"), "checkpoint.remote": f"file://{tmp_path}/far"},
    )


def begin(config: Config) -> Path:
    folder = Path(config.run.folder) / config.run.name
    folder.mkdir(parents=True)
    RunFolder(folder).write_config(dump(config), NO_PROBLEMS)
    return folder


def test_end_of_a_run_is_copied_and_brought_back(config: Config):
    check_remote(config)
    folder = begin(config)
    (folder / "report.html").write_text("well done")
    assert f"{config.checkpoint.remote}/mine" in put_ending(config, folder)
    identity = RunRecord(folder).identity()
    shutil.rmtree(folder)
    config = changed(config, {"run.restore": config.checkpoint.remote + "/"})
    assert str(folder) in bring_back(config)
    assert (folder / "report.html").read_text() == "well done"
    assert RunRecord(folder).identity() == identity
    check_remote(config)
    assert str(folder) in bring_back(config)


def test_same_command_begins_where_nothing_is_yet(config: Config):
    config = changed(config, {"run.restore": config.checkpoint.remote})
    assert f"{config.checkpoint.remote}/mine" in bring_back(config)
    config = changed(config, {"checkpoint.remote": ""})
    with pytest.raises(BadInput, match="there is no run at"):
        bring_back(config)
    assert not Path(config.run.folder, "mine").exists()


def test_other_run_of_the_name_is_not_lost(config: Config):
    folder = begin(config)
    put_ending(config, folder)
    shutil.rmtree(folder)
    pointer = Remote(config.checkpoint.remote, "mine").state()
    with pytest.raises(BadInput, match=r"another run 'mine'.*run\.restore="):
        check_remote(config)
    begin(config)
    with pytest.raises(BadInput, match="another run 'mine'"):
        check_remote(config)
    config = changed(config, {"run.restore": config.checkpoint.remote})
    with pytest.raises(BadInput, match="another run 'mine'"):
        bring_back(config)
    config = changed(config, {"run.restore": "", "run.overwrite": True})
    check_remote(config)
    assert Remote(config.checkpoint.remote, "mine").state() == pointer


def test_last_copy_that_fails_fails_no_run(config: Config, tmp_path: Path):
    (tmp_path / "far").write_text("in the way")
    assert "last upload" in put_ending(config, begin(config))


@pytest.mark.parametrize(
    ("name", "folder", "mirror"),
    [("mine", "runs", "runs"), ("runs", "runs/mine", ""), ("mine", "runs", "runs/mine/x")],
)
def test_remote_is_no_folder_of_the_run(config: Config, tmp_path: Path, name: str, folder: str, mirror: str):
    begin(config)
    config = changed(
        config,
        {"run.name": name, "run.folder": str(tmp_path / folder), "checkpoint.remote": f"file://{tmp_path / mirror}"},
    )
    with pytest.raises(BadInput, match="overlap"):
        check_remote(config)


def test_remote_with_other_files_is_refused(config: Config, tmp_path: Path):
    thesis = tmp_path / "far" / "mine" / "thesis.tex"
    thesis.parent.mkdir(parents=True)
    thesis.write_text("years of work")
    with pytest.raises(BadInput, match=r"has thesis\.tex"):
        check_remote(config)
    assert [*thesis.parent.iterdir()] == [thesis]
