"""Command lines; the exit code and the sentence of a command in which something goes wrong."""

import contextlib
import errno
import io
import os
import signal
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import NoReturn

import pytest

from microbudget_rl.conf import installation
from microbudget_rl.conf.arguments import pairs, run_and_options, words_and_options
from microbudget_rl.conf.command import CLOSED_PIPE, INTERRUPTED, PlainConsole, as_typed, command, outliving_terminal
from microbudget_rl.conf.errors import BadInput, TryLater


def ending(error: BaseException) -> int:
    """Return the exit code of a command in which an error is raised."""

    @command("thing")
    def main(arguments: list[str]) -> NoReturn:
        raise error

    return main([])


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (BadInput("x=1: no such key; y is the nearest"), 2, ["thing: x=1: no such key; y is the nearest"]),
        (TryLater("the machine is busy"), 1, ["thing: the machine is busy\n"]),
        (KeyboardInterrupt(), INTERRUPTED, []),
        (BrokenPipeError(), CLOSED_PIPE, []),
        (OSError(errno.ENOSPC, "No space left"), 2, ["(No space left)", "make room"]),
        *(
            (OSError(number, "why", "/mnt/\x1bruns" + "x" * 5000), 2, ["thing: /mnt/\\x1bruns", "(why)"])
            for number in (errno.EROFS, errno.EISDIR, errno.ENAMETOOLONG)
        ),
    ],
)
def test_an_ending_is_a_code_and_a_sentence(
    error: BaseException,
    code: int,
    words: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    assert ending(error) == code
    out, said = capsys.readouterr()
    assert (out, said.count("\n")) == ("", bool(words))
    assert len(said) < 1500
    assert [word for word in words if word not in said] == []


@pytest.mark.parametrize(("lasting", "code"), [(False, CLOSED_PIPE), (True, 7)])
def test_closed_pipe_ends_a_command_unless_it_must_last(lasting: bool, code: int, monkeypatch: pytest.MonkeyPatch):
    reader, writer = os.pipe()
    os.close(reader)
    pipe = os.fdopen(writer, "w")
    monkeypatch.setattr(sys, "stdout", pipe)
    inherited = signal.getsignal(signal.SIGHUP)

    @command("thing")
    def main(arguments: list[str]) -> int:
        with outliving_terminal() if lasting else nullcontext():
            assert signal.getsignal(signal.SIGHUP) == (signal.SIG_IGN if lasting else inherited)
            PlainConsole().print("a line")
            print("another", flush=True)
        return 7

    assert (main(["x"]), sys.stdout) == (code, None)
    with pytest.raises(BrokenPipeError):
        pipe.close()


@pytest.mark.parametrize(("cloned", "folder"), [(True, 2), (False, 0)])
def test_only_another_package_is_in_the_way(cloned: bool, folder: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(installation, "IN_CLONE", cloned)
    codes = {"rewards.py": 0, "microbudget_rl.py": 2, "microbudget_rl/x": folder, "microbudget_rl/__init__.py": 2}
    for made, code in codes.items():
        Path(made).parent.mkdir(exist_ok=True)
        Path(made).touch()
        assert command("thing")(lambda arguments: 0)([]) == code
        Path(made).unlink()
    with contextlib.chdir(installation.ROOT):
        assert command("thing")(lambda arguments: 0)([]) == 0
    Path("other/microbudget_rl").mkdir(parents=True)
    monkeypatch.syspath_prepend("other/launch")  # as for a script of another clone
    assert command("thing")(lambda arguments: 0)([]) == 2


def test_unforeseen_error_is_a_line_and_a_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    assert ending(ZeroDivisionError("by\n\x1b[31mzero of s3://me:pa5s@host")) == 1
    [log] = folder.iterdir()
    said = capsys.readouterr().err
    assert "ZeroDivisionError: by " in said
    assert str(log) in said
    assert "\x1b" not in said
    assert "ZeroDivisionError" in log.read_text()
    assert "pa5s" not in said + log.read_text()
    assert log.stat().st_mode & 0o077 == 0


def test_console_prints_text_alone_and_leaves_a_line_whole():
    PlainConsole(file=(screen := io.StringIO()), width=20).print("[bold]a[/b] \x1b[31m:smile:" + " word" * 20)
    assert screen.getvalue() == "[bold]a[/b] \\x1b[31m:smile:" + " word" * 20 + "\n"


def test_an_installed_package_names_the_command_it_has(monkeypatch: pytest.MonkeyPatch):
    lines = "python launch/chat.py runs/x", "python -m rewards.verify FILE", "python -m launch.bundled"
    assert [as_typed(line) for line in lines] == [*lines]
    monkeypatch.setattr("microbudget_rl.conf.command.IN_CLONE", False)
    assert [as_typed(line) for line in lines] == [
        "microbudget chat runs/x",
        "microbudget verify FILE",
        "microbudget bundled",
    ]


def test_a_notebooks_backend_is_not_used(monkeypatch: pytest.MonkeyPatch):
    """The kernel of a notebook sets one for its own Python, and commands that its cells call inherit it."""
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    assert command("name")(lambda arguments: int(os.environ["MPLBACKEND"] != "agg"))([]) == 0


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])  # the second is Python's in the locale C
def test_nothing_fails_for_its_encoding(errors: str, monkeypatch: pytest.MonkeyPatch):
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"4 \xff\n"), encoding="utf-8", errors=errors))

    @command("thing")
    def main(arguments: list[str]) -> int:
        print("größer \ud800", sys.stdin.readline(), end="", flush=True)
        return 0

    assert main(["now"]) == 0
    assert out.buffer.getvalue() == b"gr\\xf6\\xdfer \\ud800 4 \\xff\n"  # type: ignore[attr-defined]


OPTIONS = {"show": ("worse", "better"), "limit": ()}


def test_pairs_and_words_are_told_apart(tmp_path: Path):
    assert pairs(["a=1", "b.c=x=y", "d="], "") == {"a": "1", "b.c": "x=y", "d": ""}
    assert words_and_options(["x", "limit=3", "runs/rate=1e-5"], OPTIONS) == (["x", "runs/rate=1e-5"], {"limit": "3"})
    (tmp_path / "rate=1").mkdir()
    assert run_and_options(["rate=1", "show=worse"], OPTIONS) == (Path("rate=1"), {"show": "worse"})


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "none"),
        (["x", "y"], "x y"),
        (["x", "limt=3"], "nearest: limit"),
        (["x", "show=wors"], "worse, better"),
        (["x", "limit="], "a value"),
        (["x", "limit=1", "limit=2"], "limit=1"),
        (["x", "--limit=3"], "write limit=3"),
        (["x", "--limit", "3"], "write limit=VALUE"),
        (["x", "-v"], "key=value"),
    ],
)
def test_what_is_no_command_line_is_refused(arguments: list[str], named: str):
    with pytest.raises(BadInput, match=named):
        run_and_options(arguments, OPTIONS)


def test_a_word_among_settings_is_refused():
    with pytest.raises(BadInput, match="conf=quickstart"):
        pairs(["quikstart"], "a=1", ["conf=quickstart", "lora.rank"])
