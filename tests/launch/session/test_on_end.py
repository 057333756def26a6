import threading
from pathlib import Path

import pytest

from conf.schema import Config
from launch.session import on_end
from launch.session.on_end import OnEnd

SUMMARY = {"status": "halted", "reason": "the adapter is not 'the' one; $HOME"}


def command(text: str, folder: Path) -> OnEnd:
    config = Config()
    config.run.name, config.run.on_end = "mine", text
    return OnEnd(config, folder)


def test_command_learns_how_the_run_ended_and_runs_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    names = ("STATUS", "REASON", "EXIT_CODE", "NAME", "FOLDER")
    end = command("; ".join(f'echo "$MICROBUDGET_{name}"' for name in names), tmp_path)
    threads = [threading.Thread(target=end, args=(SUMMARY, 3)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert capfd.readouterr().out.splitlines() == ["halted", SUMMARY["reason"], "3", "mine", str(tmp_path)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("exit 7", "run.on_end=exit 7: ended with exit code 7; the run itself is as said above"),
        ("no-such-command", "ended with exit code 127"),
        ("sleep 60", "was killed after 0 s"),
    ],
)
def test_what_goes_wrong_is_said(
    text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(on_end, "PATIENCE_S", 0.05 if "sleep" in text else 60.0)
    command(text, tmp_path)(SUMMARY, 3)
    assert said in capfd.readouterr().err


def test_reason_that_no_environment_can_hold(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    command("true", tmp_path)({**SUMMARY, "reason": "a\0b"}, 1)
    assert "could not be run" in capfd.readouterr().err


def test_without_a_command_nothing_happens(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    command("", tmp_path)(SUMMARY, 3)
    assert capfd.readouterr() == ("", "")
