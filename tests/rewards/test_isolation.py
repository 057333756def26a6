"""Attacks by code that runs in a worker, against real workers."""

import contextlib
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from microbudget_rl.actors.messages import Problem, Status
from microbudget_rl.conf.schema import CustomRewardConfig, RewardConfig
from microbudget_rl.rewards import isolation, user_function
from microbudget_rl.rewards.killable_worker import KillableWorker, Limits
from microbudget_rl.rewards.pool import VerifierPool
from microbudget_rl.rewards.weighted_sum import RewardFunction
from tests.rewards.corpus import sample

NUMBERS = {"x86_64": "/usr/include/x86_64-linux-gnu/asm/unistd_64.h", "aarch64": "/usr/include/asm-generic/unistd.h"}
"""Headers of the kernel with the numbers of system calls."""

ATTACKS = {
    "opens a socket": "socket.create_connection(('127.0.0.1', PORT))",
    "opens a pair of sockets": "socket.socketpair()",
    "sends to a local socket": "socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b'x', '/dev/log')",
    "fork-bombs": "[os.fork() for _ in range(10**6)]",
    "clones by number": "call(56 if X86 else 220, 17, 0, 0, 0, 0)",
    "starts a shell": "subprocess.run('true', shell=True, check=True)",
    "spawns a shell": "os.posix_spawn('/bin/sh', ['sh'], {})",
    "writes to the home folder": "open(HOME / 'written', 'w')",
    "writes to /tmp": "tempfile.NamedTemporaryFile()",
    "writes to shared memory": "open('/dev/shm/written', 'w')",
    "makes a folder": "os.mkdir(HOME / 'made')",
    "deletes a file": "os.unlink(HOME / 'kept')",
    "empties a file": "os.truncate(HOME / 'kept', 0)",
    "links to a file": "os.symlink(HOME / 'kept', HOME / 'link')",
    "locks a file away": "os.chmod(HOME / 'kept', 0)",
    "reads the hub's token": "(HOME / '.cache/huggingface/token').read_text()",
    "lists the home folder": "os.listdir(HOME)",
    "finds the hub's token": "os.environ['HF_TOKEN']",
    "finds a token at its birth": "Path('/proc/self/environ').read_bytes().index(b'TOKEN=')",
    "reads passwords": "Path('/etc/passwd').read_text()",
    "kills its owner": "os.kill(OWNER, 9)",
    "kills all it may": "os.kill(-1, 0)",
    "kills its group": "os.killpg(0, 0)",
    "holds its owner": "signal.pidfd_send_signal(os.pidfd_open(OWNER), 0)",
    "slows its owner": "os.setpriority(os.PRIO_PROCESS, OWNER, 19)",
    "binds its owner to a core": "os.sched_setaffinity(OWNER, {0})",
    "limits its owner": "resource.prlimit(OWNER, resource.RLIMIT_CPU, (1, 1))",
    "leaves its session": "os.setsid()",
    "traces its owner": "call(101 if X86 else 117, 16, OWNER, 0, 0)",
    "allocates 100 GB": "bytearray(100 * 2**30)",
    "allocates 100 GB of shared memory": "mmap.mmap(-1, 100 * 2**30)",
    "allocates 100 GB of a memory file": "os.truncate(os.memfd_create('x'), 100 * 2**30)",
    "raises its limit of memory": "resource.setrlimit(resource.RLIMIT_DATA, (2**40, 2**40))",
    "starts threads without end": "[threading.Thread(target=time.sleep, args=(9,)).start() for _ in range(10**6)]",
    "opens too many files": "[os.dup(0) for _ in range(10**6)]",
    "asks for its own namespace": "call(272 if X86 else 97, 0x10000000)",
    "queues calls past the filter": "call(425, 8, bytes(120))",
    "opens a file by the new call": "call(437, -100, b'/etc/passwd', bytes(24), 24)",
    "loads a program into the kernel": "call(321 if X86 else 280, 0, bytes(64), 64)",
    "replies with a pickle": "os.write(PIPE, struct.pack('!i', len(PICKLE)) + PICKLE) and time.sleep(9)",
}  # fmt: skip
"""Python that a function runs, by its purpose."""

SOURCE = """
import ctypes, mmap, os, pickle, resource, signal, socket, struct, subprocess, tempfile, threading, time
from pathlib import Path

HOME, OWNER, PORT, X86 = Path({home!r}), {owner}, {port}, {x86}
libc = ctypes.CDLL(None, use_errno=True)

class Code:
    def __reduce__(self):
        return os.kill, (os.getppid(), 9)

PICKLE = pickle.dumps(Code())
PIPE = 0

def call(*arguments):
    if libc.syscall(*arguments) < 0:
        raise OSError(ctypes.get_errno(), "refused")

def links(n):
    return os.path.exists(f"/proc/self/fd/{{n}}") and os.readlink(f"/proc/self/fd/{{n}}")

def attack(prompt, response, gold):
    global PIPE
    if not prompt.startswith("attack "):
        return 1.0
    [PIPE] = [int(n) for n in os.listdir("/proc/self/fd") if "socket" in links(n)]
    eval(prompt.removeprefix("attack "))
    return 1.0
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a home folder with a token in it."""
    home = tmp_path_factory.mktemp("home")
    (home / "kept").write_text("kept")
    (home / ".cache" / "huggingface").mkdir(parents=True)
    (home / ".cache" / "huggingface" / "token").write_text("hf_secret")
    return home


@pytest.fixture(scope="module")
def pool(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VerifierPool]:
    """Make a pool of one worker whose user's function attacks."""
    import socket

    folder = tmp_path_factory.mktemp("functions")
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.MonkeyPatch.context() as patch:
        source = SOURCE.format(
            home=str(home), owner=os.getpid(), port=server.getsockname()[1], x86=platform.machine() == "x86_64"
        )
        (folder / "attacker.py").write_text(source)
        patch.setenv("HF_TOKEN", "hf_secret")
        patch.syspath_prepend(folder)
        patch.setenv("PYTHONPATH", str(folder) + os.pathsep + os.environ["PYTHONPATH"])
        config = RewardConfig(custom=[CustomRewardConfig("attacker:attack")], deadline_s=1.0)
        with VerifierPool(RewardFunction(config), workers=1) as pool:
            if pool.absent_walls:
                pytest.skip("; ".join(pool.absent_walls))
            yield pool


def rewarded(pool: VerifierPool, prompt: str) -> tuple[Status, float]:
    [reward] = pool.rewards_all([(Problem("id", prompt, (1,), r"\sqrt{2}"), sample(r"\boxed{\frac{2}{\sqrt{2}}}"))])
    return reward.status, reward.parts["attack"]


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_crashes_and_changes_nothing(pool: VerifierPool, home: Path, attack: str):
    assert rewarded(pool, f"attack {ATTACKS[attack]}") == (Status.CRASH, 0.0)
    assert rewarded(pool, "What is the root of 2?") == (Status.CORRECT, 1.0)
    assert sorted(path.name for path in home.iterdir()) == [".cache", "kept"]
    assert (home / "kept").read_text() == "kept"


ALONE = """
import errno, os, sys
from microbudget_rl.rewards import isolation
def absent(*_):
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
setattr(isolation, sys.argv[1], absent)
print(*isolation.enclose([]))
open("written", "w")
"""


@pytest.mark.long
@pytest.mark.parametrize(("function", "absent"), [("_restrict_files", "Landlock"), ("_restrict_calls", "seccomp")])
def test_each_wall_stands_without_the_other(function: str, absent: str):
    done = subprocess.run([sys.executable, "-c", ALONE, function], capture_output=True, text=True)
    assert re.fullmatch(rf"{absent}: .*\(Function not implemented\)\n", done.stdout)
    assert "PermissionError" in done.stderr


@pytest.mark.long
def test_no_answer_and_no_gold_is_run_as_code():
    heard = subprocess.run(
        [sys.executable, "-m", "tests.rewards.attack", "verifier"], capture_output=True, text=True, check=True
    )
    assert heard.stdout == ""


@pytest.mark.parametrize(("column", "machine"), list(enumerate(NUMBERS)))
def test_system_calls_have_the_kernels_numbers(column: int, machine: str):
    header = Path(NUMBERS[machine])
    if not header.exists():
        pytest.skip(f"no {header}")
    known = {
        name: int(number)
        for name, number in re.findall(r"^#define __NR(?:3264)?_(\w+)\s+(\d+)$", header.read_text(), re.MULTILINE)
    }
    listed = {name: numbers[column] for calls in isolation.CALLS.values() for name, numbers in calls.items()}
    assert listed == {name: known.get(name) for name in listed}


def test_no_readable_folder_contains_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    home, own = tmp_path / "home", tmp_path / "home" / "project"
    own.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.syspath_prepend(str(tmp_path))
    found = isolation.readable([home, own])
    assert own in found
    assert not [path for path in found if home.is_relative_to(path)]


@pytest.mark.parametrize("installed", [False, True])
def test_the_projects_code_can_be_read_and_nothing_beside_it(
    installed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """In a clone or a worktree, whose root may have data and keys, and for a package that is installed anywhere."""
    if installed:
        package = tmp_path / "site" / "microbudget_rl"
        shutil.copytree(isolation.PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("ROOT", "PACKAGE"):
            monkeypatch.setattr(isolation, name, package)
    root = isolation.PACKAGE.parent
    for folder in (tmp_path, root):
        monkeypatch.syspath_prepend(str(folder))
    found = isolation.readable([])
    code = [isolation.PACKAGE / name for name in ("__init__.py", "conf/errors.py", "rewards/verify/vocabulary.yaml")]
    paths = [path.resolve() for path in (*code, tmp_path / "key", root / "key")]
    readable = [any(path.is_relative_to(each) for each in found) for path in paths]
    assert readable == [True, True, True, False, installed]  # a package lies among others


@pytest.mark.long
def test_a_worker_has_what_the_fork_server_imports_for_it():
    with contextlib.closing(KillableWorker(Limits(2.0, 2**30))) as worker:
        assert worker.run(eval, "'microbudget_rl.rewards.preload' in __import__('sys').modules")


def test_a_function_without_walls_may_do_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "runner.py").write_text(
        "import os, subprocess\n"
        "def run(prompt, response, gold):\n"
        "    return float(subprocess.check_output(['echo', os.environ['MY_TOKEN']]))\n"
    )
    monkeypatch.setenv("MY_TOKEN", "0.5")
    worker = KillableWorker(Limits(2.0, 2**30, enclosed=False, functions=("runner:run",)))
    with contextlib.closing(worker):
        assert worker.run(user_function.call, "runner:run", "", [""], "") == [0.5]
        assert worker.absent == []
