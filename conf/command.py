"""The frame around every command: help, exit codes, and one sentence for each error."""

import contextlib
import errno
import inspect
import io
import os
import re
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from microbudget_rl.conf.errors import BadInput, TryLater, in_brief, printable, without_credentials
from microbudget_rl.conf.installation import IN_CLONE, PACKAGE, check_working_folder, not_installed
from microbudget_rl.conf.signals import end_by_signal, handle_signals

P = ParamSpec("P")
Main = Callable[Concatenate[list[str], P], int]

WORDS = frozenset({"help", "--help", "-h"})
"""Arguments that ask for help."""

BAD_INPUT = 2
INTERRUPTED = 130
CLOSED_PIPE = 141
"""Exit codes. The last two are the shell's for a command that Ctrl-C or a closed pipe has ended."""

UNFIT = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS),
    *(errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ELOOP),
}
"""Errors for a path that may not be read or written, has no room, or is not of the expected kind."""

LAYOUT = "\n\t"
"""Characters that are shown although they are not printable."""

SCRIPTS = (PACKAGE / "launch").resolve()
"""Folder of the commands."""

PROGRAM = re.compile(r"python (?:launch/(\w+)\.py|-m (?:launch|rewards)\.(\w+))")
"""Pattern of a command as it is typed in a clone."""


def as_typed(text: str) -> str:
    """Return a text with its commands, written as in a clone, as a person types them here."""
    return text if IN_CLONE else PROGRAM.sub(lambda match: f"microbudget {match[1] or match[2]}", text)


def near(path: Path) -> str:
    """Return a path as a person types it here: relative if it is below the working directory."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except (ValueError, OSError):  # elsewhere, or a working directory that is gone
        return str(path)


class PlainConsole(Console):
    """A console on which text is only text: names from outside may hold rich's markup or control characters.

    A string is printed as it is, without line breaks of the console's own; all else fits the console's width.
    """

    def __init__(self, **where: Any) -> None:
        """where: arguments of rich's console, such as file and width; none for a terminal."""
        super().__init__(**where, markup=False, emoji=False, highlight=False)
        self.width = min(self.width, 1000)  # a COLUMNS that no terminal has

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*objects, **{"soft_wrap": all(isinstance(item, str) for item in objects), **options})

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError  # rich's own would end the process with exit code 1

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text, LAYOUT), segment.style)


class Lasting:
    """A stream that outlives its reader: what cannot be written is dropped."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()


@contextlib.contextmanager
def outliving_terminal() -> Iterator[None]:
    """Go on without a terminal, or if stdout or stderr fails in another way: a pipe without a reader, a full disk."""
    streams: dict[str, TextIO | None] = {"stdout": sys.stdout, "stderr": sys.stderr}
    for name, stream in streams.items():
        setattr(sys, name, stream and Lasting(stream))
    hangup = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # for the processes that are started meanwhile too
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, hangup)
        for name, stream in streams.items():
            try:
                if stream:
                    stream.flush()
            except OSError:
                stream = None  # else Python complains when it is flushed at the end
            setattr(sys, name, stream)


def command(
    name: str, usage: str | Callable[[list[str]], None] | None = None, bare: bool = False
) -> Callable[[Main[P]], Main[P]]:
    """Decorate the `main` of a command. Its BadInput becomes a line on stderr and exit code 2, an unforeseen error a
    line with the place of its traceback and exit code 1. A signal ends the process quietly, until the command handles
    it. Reading and printing never fail because of the encoding.

    usage: the help, or a function that prints it for a command line, with exit code 0; None for a command that explains
    itself. bare: whether a command line without arguments is carried out instead of asking for help.
    """

    def decorate(main: Main[P]) -> Main[P]:
        @wraps(main)
        def guarded(arguments: list[str], *more: P.args, **keywords: P.kwargs) -> int:
            handle_signals(end_by_signal)
            if sys.path[0] and Path(sys.path[0]).resolve() == SCRIPTS:
                del sys.path[0]  # Python puts a script's folder there, which would hide a user's modules
            os.environ["MPLBACKEND"] = "agg"  # draws into files; a notebook's own is not installed here
            for stream in (sys.stdin, sys.stdout, sys.stderr):
                if isinstance(stream, io.TextIOWrapper):
                    stream.reconfigure(errors="backslashreplace")
            try:
                if usage is not None and (WORDS & {*arguments} if arguments else not bare):
                    usage(arguments) if callable(usage) else print(as_typed(inspect.cleandoc(usage)))
                    code = 0
                else:
                    check_working_folder()
                    code = main(arguments, *more, **keywords)
                if sys.stdout:
                    sys.stdout.flush()
                return code
            except KeyboardInterrupt:
                return INTERRUPTED
            except BrokenPipeError:
                sys.stdout = None  # else Python complains when it is flushed at the end
                return CLOSED_PIPE
            except Exception as error:  # the last resort: one sentence, and its traceback in a file
                return refused(name, error)

        return guarded

    return decorate


def refused(name: str, error: Exception) -> int:
    """Print a command's error as one sentence on stderr, if possible. Return the exit code."""
    code, sentence = BAD_INPUT, str(error)
    if isinstance(error, OSError) and error.errno in UNFIT:
        if error.filename is None:
            sys.stdout = None  # it has no room
        place = error.filename or "the output"
        sentence = str(BadInput(f"{place} cannot be used ({error.strerror}): make room, allow it, or name another"))
    elif isinstance(error, ModuleNotFoundError) and (fault := not_installed(str(error.name).partition(".")[0])):
        sentence = fault
    elif not isinstance(error, BadInput):
        code, sentence = 1, str(error) if isinstance(error, TryLater) else unforeseen(error)
    with contextlib.suppress(OSError):
        print(f"{name}: {as_typed(sentence)}", file=sys.stderr, flush=True)
    return code


def unforeseen(error: Exception) -> str:
    """Write the traceback of an error into a new file. Say what happened, and name the file."""
    with tempfile.NamedTemporaryFile(
        "w", prefix="microbudget-", suffix=".log", delete=False, encoding="utf-8", errors="backslashreplace"
    ) as file:
        file.write(without_credentials("".join(traceback.format_exception(error))))
    log = f"the traceback is in {file.name}: report it, it is a fault of this project"
    return f"unforeseen error, {in_brief(error)}; {log}"
