import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from actors.storage import putter as putting
from actors.storage.putter import Puts, Putter
from actors.storage.remote import Remote
from actors.storage.run_folder import RunFolder
from actors.storage.run_record import RunRecord
from conf.load import dump
from conf.schema import Config
from conf.settings import changed
from tests.actors.virtual_run import NO_PROBLEMS


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.setattr(putting, "LOOK_S", 0.01)
    config = Config()
    return changed(config, {"run.name": "mine", "checkpoint.remote": f"file://{tmp_path}/far"})


@pytest.fixture
def run(config: Config, tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "mine")
    folder.path.mkdir()
    folder.write_config(dump(config), NO_PROBLEMS)
    return folder


def news(putter: Putter) -> Puts:
    """Wait for news, and return them with the counts of the whole time."""
    copies = failures = 0
    for _ in range(3000):
        puts = putter.puts()
        copies, failures = copies + puts.copies, failures + puts.failures
        if puts.news:
            break
        time.sleep(0.01)
    return replace(puts, copies=copies, failures=failures)


def test_remote_that_is_silent_is_one_failure(config: Config, run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    monkeypatch.setattr(putting, "SILENT_S", 0.05)
    monkeypatch.setattr(Remote, "put", lambda *_: released.wait(240))
    putter = Putter(config, run)
    putter.start()
    found = news(putter)
    assert (found.failures, "no answer" in found.news, putter.puts().failures) == (1, True, 0)
    putter.stop()
    released.set()


def test_remote_that_fails_and_comes_back(config: Config, run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = [OSError("far away")]
    put = Remote.put

    def try_to_put(remote: Remote, run: RunRecord) -> None:
        if failing:
            raise failing[0]
        put(remote, run)

    monkeypatch.setattr(putting, "PAUSE_S", 0.01)
    monkeypatch.setattr(Remote, "put", try_to_put)
    putter = Putter(config, run)
    putter.start()
    found = news(putter)
    assert (found.copies, found.failures > 0, "far away" in found.news) == (0, True, True)
    failing.clear()
    assert news(putter).copies == 1
    putter.stop()
