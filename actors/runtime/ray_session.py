"""Starting Ray in a temporary folder of its own, and clearing that: hundreds of megabytes of logs, and the sockets of
all processes, which Ray and the libraries never delete.
"""

import contextlib
import json
import logging
import os
import secrets
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from actors.runtime.placement import Placement
from actors.storage.files import is_private, private_folder, replace_text
from actors.storage.folders import discard, mark, read_mark
from actors.storage.layout import RAY_SESSION
from conf.documents import path_of
from conf.errors import BadInput
from conf.schema import Config

OBJECT_STORE_BYTES = 2**28
"""Size of Ray's object store, which holds it from the start. Groups and batches are a few megabytes; Ray's default is a
third of the host's memory."""

TOKENS = "~/.ray"
"""Where Ray keeps the token, readable by all unless the folder is not."""

NOTE = "ray-session"
"""File in the folder of a run or an evaluation that names the temporary folder of its last Ray session."""

RAY = "ray"
"""Folder of Ray within that one."""

LONGEST = 42
"""Characters of the path of Ray's folder that leave room for a session's sockets, whose paths have 107 at most."""

SERVERS = ("raylet", "gcs_server")
"""Processes of a Ray session after whose end all others should end."""

WORKERS = "ray::"
"""How the names of those others begin. Only the files of the session that they have open say whose they are."""

ACTORS = tuple(f"{WORKERS}{kind}"[:15] for kind in ("CoordinatorActor", "RolloutActor", "RewardActor", "LearnerActor"))
"""How the names of a run's own processes begin, of which the kernel keeps 15 characters."""

DEATH_S = 10.0
"""Seconds that those others are waited for: until then they hold memory."""


@contextlib.contextmanager
def ray_session(
    config: Config, placement: Placement, folder: Path, dashboard: bool, joined: Any = None
) -> Iterator[tuple[Path, str, str]]:
    """Start Ray on this machine with the placement's resources, in a temporary folder that is noted in a folder.

    joined: what `ray.init` returned for a cluster, which is then used instead, and stays.
    Yields the session folder and the addresses of dashboard and metrics. At the end all of a Ray that was started here
    is gone but its temporary folder.
    """
    import ray

    if joined is not None:
        try:
            yield addresses(joined)
        finally:
            ray.shutdown()
        return
    temporary = make_temporary(folder)
    context = start_ray(config, placement, dashboard, temporary)
    try:
        yield addresses(context)
    finally:
        ray.shutdown()
        end_processes(temporary)


def require_token() -> None:
    """Raise BadInput if Ray is told to do without a token, and keep the one of this user from others."""
    if (mode := os.environ.get("RAY_AUTH_MODE", "token")) != "token":
        raise BadInput(f"RAY_AUTH_MODE={mode}: whoever reaches a port of Ray could run code as you: unset it")
    folder = path_of(TOKENS, f"{TOKENS}, where Ray keeps its token")
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        folder.chmod(0o700)
    except OSError as error:
        raise BadInput(
            f"{folder} holds Ray's token and cannot be made yours alone ({error.strerror}): give another HOME"
        ) from error


def start_ray(config: Config, placement: Placement, dashboard: bool, temporary: Path) -> Any:
    """Start a Ray of one's own, which listens on the loopback interface alone. Return what `ray.init` does.

    temporary: folder for the temporary files of its processes, Ray's own among them.
    """
    require_token()
    # Off by default, and without it the children of a killed actor outlive it.
    os.environ["RAY_process_group_cleanup_enabled"] = "1"
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # Ray's 15 lets whatever else the machine does starve an engine until it is taken to hang.
    os.environ["RAY_worker_niceness"] = "0"
    # Else a /dev/shm that others have filled kills the store, and the run, when it takes its next page.
    os.environ["RAY_preallocate_plasma_memory"] = "1"
    # Ray 2.60's monitor ends all workers at once, the coordinator too, while a neighbour takes the memory for a moment.
    # The kernel takes the largest worker, and only where there is none left.
    os.environ["RAY_memory_monitor_refresh_ms"] = "0"
    # Ray 2.60 gives a node the loopback address only where it takes a cluster for impossible: `_node_ip_address` is
    # resolved to another. Its processes read the variable; here its module may have been imported before.
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    for library in ("GLOO", "NCCL"):  # they ask nobody for a token, and else take the address of the host's name
        os.environ[f"{library}_SOCKET_IFNAME"] = "lo"
    import ray
    from ray._private import ray_constants

    ray_constants.ENABLE_RAY_CLUSTER = False
    # Torch looks for code it has compiled under a foreseeable name, in a folder that the next run has too.
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(temporary.parent / "torchinductor"))
    shares = (*placement.rollouts, *placement.learners)
    with out_of_the_terminals_reach(), temporary_files_in(temporary):
        return ray.init(
            address="local",
            num_cpus=sum(share.threads for share in shares),
            num_gpus=round(sum(share.gpus for share in shares)) or None,
            include_dashboard=dashboard,
            dashboard_host=config.dashboard.host,
            dashboard_port=config.dashboard.port,
            object_store_memory=OBJECT_STORE_BYTES,
            log_to_driver=False,
            logging_level=logging.ERROR,
            namespace=config.run.name,
            _temp_dir=str(temporary / RAY),
        )


@contextlib.contextmanager
def out_of_the_terminals_reach() -> Iterator[None]:
    """Have processes that are started meanwhile take no notice of Ctrl-Z, which then stops only this one: actors that
    Ray's servers do not answer for a minute end themselves.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTSTP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTSTP})


@contextlib.contextmanager
def temporary_files_in(folder: Path) -> Iterator[None]:
    """Have processes that are started meanwhile put their temporary files into a folder."""
    before = os.environ.get("TMPDIR")
    os.environ["TMPDIR"] = str(folder)
    try:
        yield
    finally:
        del os.environ["TMPDIR"]
        os.environ |= {} if before is None else {"TMPDIR": before}


def make_temporary(folder: Path) -> Path:
    """Make a temporary folder for Ray, and note it in a folder, whose alone it is. Ray lets everybody write to its own:
    it stands in one that is the user's alone.
    """
    root = private_folder().resolve()
    if len(f"{root}/run-12345678/{RAY}") > LONGEST:
        root = private_folder("/tmp").resolve()
    place = Path(tempfile.mkdtemp(prefix="run-", dir=root))
    number = secrets.token_hex(16)
    mark(place, RAY_SESSION.kind, number=number, owner=folder.stat().st_ino)
    replace_text(folder / NOTE, json.dumps({"temporary": str(place), "number": number}))
    return place


def addresses(context: Any) -> tuple[Path, str, str]:
    """Return session folder, dashboard and metrics of this node."""
    node = context.address_info
    return Path(node["session_dir"]), context.dashboard_url, f"{node['node_ip_address']}:{node['metrics_export_port']}"


def clear_session(folder: Path) -> None:
    """End what is left of the last session noted in a folder, and delete its files. The folder must be locked."""
    if (temporary := _noted(folder)) is not None:
        end_processes(temporary)
        with contextlib.suppress(OSError):  # a process that is ending may add to it
            discard(temporary, RAY_SESSION)
        if not temporary.exists():
            (folder / NOTE).unlink()


def _noted(folder: Path) -> Path | None:
    """Return the temporary folder noted in a folder, if we made it for that one: a note may have come with a copy, or
    from anybody. The folder's own number says so, which no copy has.
    """
    try:
        note = json.loads((folder / NOTE).read_text())
        place, number = Path(note["temporary"]), note["number"]
        ours = place.is_absolute() and place.resolve() == place and is_private(place)
    except (OSError, ValueError, TypeError, KeyError, RuntimeError):
        return None
    expected = {"kind": RAY_SESSION.kind, "number": number, "owner": folder.stat().st_ino}
    return place if ours and read_mark(place) == expected else None


def end_processes(temporary: Path) -> None:
    """Kill what is left of a session in a temporary folder and wait until it is gone. Ray's workers notice the end of
    their servers by timers that follow the date: where the clock was set back, they notice it as much later.
    """
    dying = list[psutil.Process]()
    for process in psutil.process_iter(["name"]):
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):  # it has ended; it is another user's
            if _belongs(process, temporary):
                dying += [process, *process.children(recursive=True)]
                process.kill()
    psutil.wait_procs(dying, timeout=DEATH_S)


def end_actors() -> None:
    """Kill what is left of the actors of a coordinator that has died, of a Ray that this process started, and wait
    until it is gone: the next ones need its memory, and write to the same folder.
    """
    dying = list[psutil.Process]()
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.name().startswith(ACTORS):
                dying += [process, *process.children(recursive=True)]
    for process in dying:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(dying, timeout=DEATH_S)


def _belongs(process: psutil.Process, temporary: Path) -> bool:
    if process.info["name"] in SERVERS:
        return any(f"{temporary}/" in argument for argument in process.cmdline())
    return process.info["name"].startswith(WORKERS) and any(
        Path(file.path).is_relative_to(temporary) for file in process.open_files()
    )
