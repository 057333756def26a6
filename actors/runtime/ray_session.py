"""Starts Ray in a temporary folder, and deletes its files afterwards, which Ray and the libraries never do."""

import contextlib
import json
import logging
import os
import re
import signal
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import psutil

from microbudget_rl.actors.runtime.placement import Placement
from microbudget_rl.actors.storage.files import is_private, private_folder, replace_text
from microbudget_rl.actors.storage.folders import delete, mark, read_mark
from microbudget_rl.conf.errors import BadInput, TryLater
from microbudget_rl.conf.parsing import path_of, reason
from microbudget_rl.conf.schema import Config
from microbudget_rl.conf.signals import blocked, handle_signals, on_leave

OBJECT_STORE_BYTES = 2**28
"""Size of Ray's object store. Batches are a few megabytes; Ray's default is a third of the host's memory."""

TOKENS = "~/.ray"
"""Folder of Ray's token, which all users can read unless the folder is private."""

NOTE = "ray-session"
"""File in the folder of a run or an evaluation that names the temporary folder of its last Ray session."""

RAY = "ray"
"""Folder of Ray within the temporary one."""

LONGEST = "session_2026-12-31_23-59-59_999999_4194304/sockets/dash_TaskEventsHead"
"""Longest path of a socket in Ray's folder: its dashboard's longest name, and seven digits of a process number."""

SOCKET = 107
"""Most bytes in the path of a socket, by Linux."""

SERVERS = ("raylet", "gcs_server")
"""Names of a Ray session's server processes. The session's other processes should end after them."""

WORKERS = "ray::"
"""Prefix of the names of Ray's workers. Only their open files tell the session they belong to."""

ACTORS = tuple(
    f"{WORKERS}{kind}"[:15]
    for kind in ("CoordinatorActor", "RolloutActor", "RewardActor", "LearnerActor", "WeightsActor")
)
"""Names of a run's actor processes, of which the kernel keeps 15 characters."""

KILLED_S = 10.0
"""Seconds to wait for the end of killed processes, which hold memory until then."""

SLOW_S = 15.0
"""Seconds after which a failed start of Ray counts as too slow. It gives up after 30 s, too soon on a busy machine."""

RAN_OUT = re.compile(r"time(d )?out|deadline|within \d+|not have started|no node info|unavailable", re.IGNORECASE)
"""Text of Ray 2.60's errors, of several types, for a start that has waited too long for one of its processes."""

PATIENCE_S = 600.0
"""Most seconds in which Ray is started again; in half of the budget if that is less."""

T = TypeVar("T")


@contextlib.contextmanager
def ray_session(
    config: Config, placement: Placement, folder: Path, dashboard: bool, joined: Any = None
) -> Iterator[tuple[Path, str]]:
    """Start Ray on this machine with the placement's resources; yield its session folder and the dashboard's
    address. At the end only its temporary folder is left, and a note in `folder` names it.

    joined: the result of `ray.init` for a cluster, which is used instead and keeps running.
    """
    if joined is not None:
        try:
            yield addresses(joined)
        finally:
            shut_down()
        return
    temporary = make_temporary(folder)
    try:
        yield addresses(start_in_time(config, placement, dashboard, temporary))
    finally:
        shut_down()
        end_processes(temporary)


def shut_down() -> None:
    """Shut Ray down, and handle signals as before: Ray's C++ gives SIGTERM its default action meanwhile."""
    import ray

    with ThreadPoolExecutor(1) as thread:
        done = thread.submit(ray.shutdown)
        while True:
            over = wait({done}, 0.01).done
            handle_signals(signal.getsignal(signal.SIGTERM))
            if over:
                return done.result()


class BackgroundContext(contextlib.AbstractContextManager[T]):
    """A context that a thread has begun to enter; `with` waits for it. The thread lives as long as this object: the
    kernel kills Ray's servers once the thread that started them is gone. In the main thread, Ray would replace the
    handler of SIGTERM.
    """

    def __init__(self, context: contextlib.AbstractContextManager[T]) -> None:
        self._context = context
        self._thread = ThreadPoolExecutor(1)
        self._entered = self._thread.submit(context.__enter__)

    def __enter__(self) -> T:
        return self._entered.result()

    def __exit__(self, *error: Any) -> bool | None:
        return self._context.__exit__(*error)


def require_token() -> None:
    """Make the folder of Ray's token private. Raises BadInput if Ray is told to use no token."""
    if (mode := os.environ.get("RAY_AUTH_MODE", "token")) != "token":
        raise BadInput(f"RAY_AUTH_MODE={mode}: everybody who reaches a port of Ray could run code as you; unset it")
    folder = path_of(TOKENS, f"{TOKENS}, where Ray keeps its token")
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        folder.chmod(0o700)
    except OSError as error:
        raise BadInput(
            f"{folder} holds Ray's token and cannot be made private ({error.strerror}): give another HOME"
        ) from error


def start_in_time(config: Config, placement: Placement, dashboard: bool, temporary: Path) -> Any:
    """Start Ray as `start_ray` does, again if that runs out of time. Raises TryLater if it does not help in time."""
    import ray

    limit_s = min(config.budget.seconds / 2, PATIENCE_S)
    began = time.monotonic()
    while True:
        since = time.monotonic()
        try:
            return start_ray(config, placement, dashboard, temporary)
        except Exception as error:  # Ray raises plain ones
            took, spent = time.monotonic() - since, time.monotonic() - began
            if took < SLOW_S or not RAN_OUT.search(f"{type(error).__name__}: {error}"):
                raise
            ray.shutdown()
            _end(psutil.Process().children(recursive=True), lambda process: _names(process, temporary))
            if spent + took > limit_s:
                busy = f"load {os.getloadavg()[0]:.0f} on {os.cpu_count()} cores"
                remedy = "end other work on this machine, or give more budget, and start again"
                raise TryLater(f"Ray has not started in {spent:.0f} s ({reason(error)}; {busy}): {remedy}") from error
            print(f"Ray has not started in {took:.0f} s ({reason(error)}): starting it again", flush=True)


def start_ray(config: Config, placement: Placement, dashboard: bool, temporary: Path) -> Any:
    """Start Ray on the loopback interface alone, and return the result of `ray.init`.

    temporary: folder for the temporary files of Ray and all its processes.
    """
    require_token()
    # Off by default, and without it the children of a killed actor outlive it.
    os.environ["RAY_process_group_cleanup_enabled"] = "1"
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # With Ray's 15, other work on the machine slows an engine until it counts as hanging.
    os.environ["RAY_worker_niceness"] = "0"
    # Otherwise a /dev/shm that others have filled crashes the store, and the run, when it takes its next page.
    os.environ["RAY_preallocate_plasma_memory"] = "1"
    # Ray 2.60's monitor ends all workers at once, the coordinator too, while another program takes the memory for a
    # moment. The kernel ends the largest worker, and only where no memory is left.
    os.environ["RAY_memory_monitor_refresh_ms"] = "0"
    # Ray 2.60 gives a node the loopback address only if it believes a cluster impossible; it resolves
    # `_node_ip_address` to another. Ray's processes read the variable, but this one may have imported Ray before.
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    for library in ("GLOO", "NCCL"):  # they need no token, and by default listen at the host name's address
        os.environ[f"{library}_SOCKET_IFNAME"] = "lo"
    import ray
    from ray._private import ray_constants

    # A command sets it before this import, which has read it. Workers keep Ray's handler, which logs how they crash.
    os.environ.pop("RAY_DISABLE_FAILURE_SIGNAL_HANDLER", None)
    ray_constants.ENABLE_RAY_CLUSTER = False
    logging.getLogger("ray").setLevel(logging.ERROR)  # it warns that a thread cannot set a signal's handler
    # Torch looks for compiled code under a predictable name, in a folder that the next run has too.
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(temporary.parent / "torchinductor"))
    shares = (*placement.rollouts, *placement.learners)
    # Actors exit when Ray's servers are stopped for a minute, as by Ctrl-Z.
    with blocked(signal.SIGTSTP), temporary_files_in(temporary):
        return ray.init(
            address="local",
            num_cpus=sum(share.threads for share in shares),
            num_gpus=placement.gpus or None,
            include_dashboard=dashboard,
            dashboard_host="127.0.0.1",  # whoever reaches it and has its token can run code
            dashboard_port=config.dashboard.port,
            object_store_memory=OBJECT_STORE_BYTES,
            log_to_driver=False,
            logging_level=logging.ERROR,
            namespace=config.run.name,
            _temp_dir=str(temporary / RAY),
        )


@contextlib.contextmanager
def temporary_files_in(folder: Path) -> Iterator[None]:
    """Make processes that start meanwhile put their temporary files into a folder."""
    before = os.environ.get("TMPDIR")
    os.environ["TMPDIR"] = str(folder)
    try:
        yield
    finally:
        del os.environ["TMPDIR"]
        os.environ |= {} if before is None else {"TMPDIR": before}


def root_of(path: str) -> Path:
    """Return this user's temporary folder, or the one in /tmp if the path of a socket in the former is too long."""
    root = private_folder().resolve()
    return root if len(os.fsencode(root / path)) <= SOCKET else private_folder("/tmp").resolve()


def make_temporary(folder: Path) -> Path:
    """Make a temporary folder for Ray in a private one, since all users can write to Ray's own; note it in `folder`."""
    place = Path(tempfile.mkdtemp(prefix="run-", dir=root_of(f"run-12345678/{RAY}/{LONGEST}")))
    on_leave(partial(_drop, folder, place))
    mark(place, "ray-session", owner=folder.stat().st_ino)
    replace_text(folder / NOTE, json.dumps({"temporary": str(place)}))
    return place


def addresses(context: Any) -> tuple[Path, str]:
    return Path(context.address_info["session_dir"]), context.dashboard_url


def clear_session(folder: Path) -> None:
    """End the remaining processes of the session noted in `folder`, and delete its files. The folder must be locked."""
    if (temporary := _noted(folder)) is not None:
        end_processes(temporary)
        _drop(folder, temporary)


def session_logs(folder: Path) -> Path | None:
    """Return the folder of the logs of the session noted in `folder`; None if it is gone."""
    return (temporary := _noted(folder)) and temporary / RAY / "session_latest" / "logs"


def _drop(folder: Path, temporary: Path) -> None:
    """Delete the files of a session, and its note in `folder`."""
    with contextlib.suppress(OSError):  # a process that is ending may add to it
        delete(temporary)
    if not temporary.exists():
        (folder / NOTE).unlink(missing_ok=True)


def _noted(folder: Path) -> Path | None:
    """Return the noted temporary folder if its mark has the run folder's inode: a copied note does not count."""
    try:
        place = Path(json.loads((folder / NOTE).read_text())["temporary"])
        ours = place.is_absolute() and place.resolve() == place and is_private(place)
    except (OSError, ValueError, TypeError, KeyError, RuntimeError):
        return None
    expected = {"kind": "ray-session", "owner": folder.stat().st_ino}
    return place if ours and read_mark(place) == expected else None


def end_processes(temporary: Path) -> None:
    """Kill a session's processes and await their end. Left alone, workers end by timers that follow the date."""
    _end(psutil.process_iter(), lambda process: _belongs(process, temporary))


def end_actors() -> None:
    """Kill the actors of a crashed coordinator and await their end: the next ones need their memory and folder."""
    _end(psutil.Process().children(recursive=True), lambda process: process.name().startswith(ACTORS))


def _end(processes: Iterable[psutil.Process], chosen: Callable[[psutil.Process], bool]) -> None:
    killed = list[psutil.Process]()
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):  # it has ended or is another user's
            if chosen(process):
                killed += [process, *process.children(recursive=True)]
    for process in killed:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(killed, timeout=KILLED_S)


def _belongs(process: psutil.Process, temporary: Path) -> bool:
    name = process.name()
    if name in SERVERS:
        return _names(process, temporary)
    return name.startswith(WORKERS) and any(Path(file.path).is_relative_to(temporary) for file in process.open_files())


def _names(process: psutil.Process, temporary: Path) -> bool:
    return any(f"{temporary}/" in argument for argument in process.cmdline())
