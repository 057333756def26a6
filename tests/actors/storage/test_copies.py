import shutil
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from microbudget_rl.actors.storage import copies
from microbudget_rl.actors.storage.copies import Copies, CopyFailed, check_copies, copy_ending, execute
from microbudget_rl.actors.storage.run_folder import RunFolder
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.schema import Config
from microbudget_rl.conf.settings import changed
from tests.actors.storage.test_checkpoints import save

pytestmark = pytest.mark.long

COPY = 'mkdir -p "{far}" && cp -a "$MICROBUDGET_FOLDER/." "{far}"'


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "runs" / "mine")
    folder.recover()
    for version in (1, 2, 3):
        save(folder.checkpoints, version)
    folder.checkpoints.mark_best(2)
    (folder.path / ".hidden").touch()
    (folder.path / "report.html").write_text("well done")
    return folder


def with_command(command: str) -> Config:
    return changed(Config(), {"run.name": "mine", "checkpoint.copy": command})


def test_copy_has_what_a_resume_needs(run: RunFolder, tmp_path: Path):
    far = tmp_path / "far away"
    assert "failed" not in copy_ending(with_command(COPY.format(far=far)), run.path)
    assert {path.name for path in (far / "checkpoints").iterdir()} == {"update-000002", "update-000003"}
    assert (far / "report.html").read_text() == "well done"
    assert not (far / ".hidden").exists()
    assert not [*run.path.glob(".copy*")]
    shutil.rmtree(run.path)
    shutil.copytree(far, run.path)
    again = RunFolder(run.path)
    again.recover()
    assert again.checkpoints.latest == run.path / "checkpoints" / "update-000003"


def test_every_new_checkpoint_is_copied_once(run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(copies, "PAUSE_S", 0.0)
    log = tmp_path / "log"
    copying = Copies(with_command(f'echo "$MICROBUDGET_NAME" >> {log}; test -e {tmp_path}/good'), run)

    def look() -> tuple[int, str]:
        copying.look()
        copying.worker.wait(10.0)
        return copying.worker.losses()

    lost, reason = look()
    assert (lost, "exit code 1" in reason) == (1, True)
    (tmp_path / "good").touch()
    assert [look()[0], look()[0]] == [0, 0]
    save(run.checkpoints, 4)
    assert look()[0] == 0
    assert log.read_text().split() == ["mine"] * 3


def test_command_that_hangs_is_stopped_with_all_of_its_processes(tmp_path: Path):
    with pytest.raises(CopyFailed):
        execute(with_command(f"sleep 1000 & echo $! > {tmp_path}/child; wait"), tmp_path, 1.0)
    child = int((tmp_path / "child").read_text())
    with suppress(psutil.NoSuchProcess):
        psutil.Process(child).wait(10.0)


@pytest.mark.parametrize("command", ["no-such-program", "echo denied >&2; exit 3"])
def test_command_that_fails_is_refused_before_the_run(command: str):
    with pytest.raises(BadInput, match=r"checkpoint\.copy=.*(not found|denied)"):
        check_copies(with_command(command))


def test_good_command_or_none_is_accepted():
    check_copies(with_command('test -d "$MICROBUDGET_FOLDER"'))
    check_copies(Config())
