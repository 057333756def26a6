"""What a command says and returns when something goes wrong in it."""

import errno
import io
import os
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from conf.command import CLOSED_PIPE, INTERRUPTED, PlainConsole, command
from conf.errors import BadInput


def ending(error: BaseException) -> int:
    """Return the exit code of a command in which an error is raised."""

    @command("thing")
    def main(arguments: list[str]) -> NoReturn:
        raise error

    return main([])


def test_result_and_arguments_pass() -> None:
    @command("thing")
    def main(arguments: list[str], number: int, more: int = 0) -> int:
        return len(arguments) + number + more

    assert main(["a"], 2, more=3) == 6


def test_bad_input_is_a_line_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert ending(BadInput("x=1: no such key; y is the nearest")) == 2
    assert capsys.readouterr() == ("", "thing: x=1: no such key; y is the nearest\n")


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), INTERRUPTED), (BrokenPipeError(), CLOSED_PIPE)])
def test_whoever_stops_it_is_told_nothing(
    error: BaseException, code: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    assert ending(error) == code
    assert capsys.readouterr() == ("", "")


def test_exit_is_left_alone() -> None:
    with pytest.raises(SystemExit):
        ending(SystemExit(3))


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_unforeseen_error_is_a_line_and_a_file(capsys: pytest.CaptureFixture[str], temporary: Path) -> None:
    assert ending(ZeroDivisionError("by\n\x1b[31mzero")) == 1
    [log] = temporary.iterdir()
    said = capsys.readouterr().err
    assert "ZeroDivisionError: by " in said
    assert str(log) in said
    assert "\x1b" not in said
    assert "ZeroDivisionError" in log.read_text()
    assert log.stat().st_mode & 0o077 == 0


def test_unforeseen_error_with_no_room_for_its_traceback(capsys: pytest.CaptureFixture[str], temporary: Path) -> None:
    temporary.rmdir()
    assert ending(ZeroDivisionError("by zero")) == 1
    assert "could not be written (No such file or directory)" in capsys.readouterr().err


def test_full_disk_is_a_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    assert ending(OSError(errno.ENOSPC, "No space left on device")) == 2
    assert "(No space left on device): make room" in capsys.readouterr().err


def test_a_place_that_is_not_ones_own_is_a_line_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    for number in (errno.EROFS, errno.EISDIR, errno.ENAMETOOLONG):
        assert ending(OSError(number, "why", "/mnt/\x1bruns" + "x" * 5000)) == 2
        said = capsys.readouterr().err
        assert said.startswith("thing: /mnt/\\x1bruns")
        assert "(why)" in said
        assert len(said) < 1500


def test_nothing_printed_fails_for_its_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", out)

    @command("thing")
    def main(arguments: list[str]) -> int:
        print("größer \ud800", flush=True)
        return 0

    assert main([]) == 0
    assert out.buffer.getvalue() == b"gr\\xf6\\xdfer \\ud800\n"  # type: ignore[attr-defined]


def test_console_takes_no_markup_and_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    PlainConsole().print("[bold]a[/b] \x1b[31m:smile:")
    assert capsys.readouterr().out == "[bold]a[/b] \\x1b[31m:smile:\n"


def test_a_notebooks_backend_of_matplotlib_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel of a notebook sets one for its own Python, and commands that its cells call inherit it."""
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    assert command("name")(lambda arguments: int(os.environ["MPLBACKEND"] != "agg"))([]) == 0
