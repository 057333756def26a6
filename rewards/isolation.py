"""Confines a process that verifies answers, in case an answer or a library makes it run code after all.

It can read only Python's and the project's files and write none. It has no network, no further process, no power over
other processes, no privileges, and no tokens in its environment. Landlock (files, since Linux 5.13) and seccomp (system
calls) are called through ctypes: their Python bindings are unmaintained, or confine only a new program.
"""

import contextlib
import ctypes
import os
import platform
import resource
import struct
import sys
import threading
from collections.abc import Iterable, Iterator
from errno import ENOSYS, EPERM
from pathlib import Path

import yaml

from microbudget_rl.conf.installation import PACKAGE, ROOT

ENVIRONMENT = {
    "PATH", "HOME", "USER", "LANG", "LANGUAGE", "TZ", "TMPDIR", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "LD_PRELOAD",
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "PYTHONPATH", "PYTHONHASHSEED", "PYTHONUTF8", "PYTHONWARNINGS",
    "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX", "MICROBUDGET_FUNCTIONS",
}  # fmt: skip
"""Variables that are passed on, with all LC_…; any other might be a token."""

SYSTEM = (
    "/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/localtime", "/dev/null", "/dev/urandom", "/dev/zero",
    "/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/sys/devices/system/cpu",
)  # fmt: skip
"""Paths that Python and its numerical libraries read. The /proc of other processes would show their environment."""

NETWORK = (
    "/etc/hosts", "/etc/resolv.conf", "/etc/nsswitch.conf", "/etc/host.conf", "/etc/gai.conf", "/etc/ssl", "/etc/pki",
)  # fmt: skip
"""Paths that name other machines and certify them."""

OPEN_FILES = 256
PRINTED = 2**30
"""Largest log of a process's prints, bytes."""

LANDLOCK = "Landlock: reward code could read your files, tokens included"
SECCOMP = "seccomp: reward code could use the network, start processes and end others"

_PR_SET_NO_NEW_PRIVS = 38
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_FILES = {1: 2**13 - 1, 2: 2**14 - 1, 3: 2**15 - 1, 5: 2**16 - 1}
"""Bit mask of the file accesses that Landlock governs, by its version."""

_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
"""Index into the numbers of CALLS, and the kernel's number of the architecture."""

CALLS = yaml.safe_load(Path(__file__).with_name("system_calls.yaml").read_text(encoding="utf-8"))
"""System calls by their treatment in the filter, each with its numbers."""

_NEWEST = 462
"""The last system call that CALLS considers (Linux 6.10). Later calls and x32's numbers are reported as unknown."""

_ALL = 0xFFFFFFFF
_THREAD = 0x10000  # CLONE_THREAD
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_INTERNET = {2, 10}  # AF_INET, AF_INET6
_SHARED_MEMORY = 0x21  # MAP_SHARED | MAP_ANONYMOUS, which no limit of a process counts
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C  # type into the terminal

_environment = threading.Lock()
_libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def bare_environment() -> Iterator[None]:
    """Start processes inside this context with ENVIRONMENT only."""
    with _environment:
        whole = dict(os.environ)
        for name in whole:
            if name not in ENVIRONMENT and not name.startswith("LC_"):
                del os.environ[name]
        try:
            yield
        finally:
            os.environ.update(whole)


def enclose(folders: Iterable[Path], network: bool = False) -> list[str]:
    """Confine this process for good. folders: further ones that it may read. network: whether it may use TCP and UDP.

    Return the layers of the sandbox that this kernel lacks, each with the danger that remains.
    """
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (PRINTED, PRINTED))
    _checked(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    absent = []
    try:
        _restrict_files(readable([*folders, *map(Path, NETWORK)] if network else folders), network)
    except OSError as error:
        absent.append(f"{LANDLOCK} ({error.strerror})")
    try:
        _restrict_calls(network)
    except OSError as error:
        absent.append(f"{SECCOMP} ({error.strerror})")
    return absent


def readable(folders: Iterable[Path]) -> set[Path]:
    """Return the existing files and folders that may be read. None contains the home folder, where tokens are."""
    paths = {Path(path).resolve() for path in (*SYSTEM, sys.prefix, sys.base_prefix, *sys.path)} - {ROOT, Path.cwd()}
    linked = {path.resolve() for path in PACKAGE.iterdir()}  # a clone's folders, since its root has much else
    paths |= {PACKAGE} | linked | {folder.resolve() for folder in folders}
    home = Path(os.path.expanduser("~")).resolve()  # Path.home raises where there is none
    return {path for path in paths if path.exists() and not home.is_relative_to(path)}


def _restrict_files(paths: Iterable[Path], network: bool) -> None:
    """Refuse all access to files except reading these, and with later Landlock versions TCP and signals to others."""
    version = _checked(_libc.syscall(_CREATE_RULESET, None, 0, 1))
    files = _FILES[max(known for known in _FILES if known <= version)]
    rules = struct.pack("QQQ", files, (1 if network else 3) if version >= 4 else 0, 3 if version >= 6 else 0)
    ruleset = _checked(_libc.syscall(_CREATE_RULESET, rules, len(rules), 0))
    for path in paths:
        descriptor = os.open(path, os.O_PATH)
        rights = _READ_FILE | (_READ_DIR if path.is_dir() else 0)
        _checked(_libc.syscall(_ADD_RULE, ruleset, 1, struct.pack("=Qi", rights, descriptor), 0))
        os.close(descriptor)
    _checked(_libc.syscall(_RESTRICT_SELF, ruleset, 0))
    os.close(ruleset)


def _restrict_calls(network: bool) -> None:
    """Drop all privileges and install the filter of system calls."""
    machine = platform.machine()
    if machine not in _ARCHITECTURES or sys.maxsize < 2**32:
        raise OSError(ENOSYS, f"no table of system calls for {machine}")
    column, architecture = _ARCHITECTURES[machine]
    _checked(_libc.capset(struct.pack("Ii", 0x20080522, 0), bytes(24)))
    program = _filter(column, architecture, os.getpid(), network)
    code = ctypes.create_string_buffer(program, len(program))
    pointer = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(code))
    for_all_threads = 1
    _checked(_libc.syscall((317, 277)[column], 1, for_all_threads, pointer))


def _filter(column: int, architecture: int, process: int, network: bool) -> bytes:
    """Return the BPF program that decides on every system call; it reads the low halves of its arguments."""
    allow, refuse, unknown, end = 0x7FFF0000, 0x50000 | EPERM, 0x50000 | ENOSYS, 0x80000000
    code: list[bytes] = []

    def add(operation: int, value: int, if_true: int = 0, if_false: int = 0) -> None:
        code.append(struct.pack("HBBI", operation, if_true, if_false, value))

    load, mask, equal, above, answer = 0x20, 0x54, 0x15, 0x25, 0x06
    add(load, 4)
    add(equal, architecture, 1, 0)
    add(answer, end)
    add(load, 0)
    add(above, _NEWEST, 0, 1)
    add(answer, unknown)
    for group, result in (("refused", refuse), ("unknown", unknown)):
        for numbers in CALLS[group].values():
            if (number := numbers[column]) is not None:
                add(equal, number, 0, 1)
                add(answer, result)

    for name, argument, bits, values, matched in (
        ("socket", 0, _ALL, _INTERNET if network else set(), allow),
        ("kill", 0, _ALL, {process}, allow),
        ("tgkill", 0, _ALL, {process}, allow),
        ("prlimit64", 0, _ALL, {0, process}, allow),
        ("sched_setaffinity", 0, _ALL, {0, process}, allow),
        ("clone", 0, _THREAD, {_THREAD}, allow),
        ("open", 1, _WRITING, {0}, allow),
        ("openat", 2, _WRITING, {0}, allow),
        ("mmap", 3, _SHARED_MEMORY, {_SHARED_MEMORY}, refuse),
        ("ioctl", 1, _ALL, {_TIOCSTI, _TIOCLINUX}, refuse),
    ):  # matched: the answer if these bits of an argument are one of the values
        if (number := CALLS["by_argument"][name][column]) is not None:
            add(load, 0)
            add(equal, number, 0, 4 + len(values))
            add(load, 16 + 8 * argument)
            add(mask, bits)
            for place, value in enumerate(values):
                add(equal, value, len(values) - place, 0)
            add(answer, refuse if matched == allow else allow)
            add(answer, matched)
    add(answer, allow)
    return b"".join(code)


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
