"""Starting Ray, and clearing its session folders: hundreds of megabytes of logs, which Ray itself never deletes."""

import contextlib
import logging
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from actors.runtime.placement import Placement
from actors.storage.files import private_folder, replace_text
from conf.schema import Config
from launch.hardware.network import require_token
from launch.plan.memory import OBJECT_STORE_BYTES

NOTE = "ray-session"
"""File in the folder of a run or an evaluation that names its last Ray session."""

LONGEST = 42
"""Characters of its folder's path that leave room for a session's sockets, whose paths have 107 at most."""

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
    """Start Ray on this machine with the placement's resources, and note its session in a folder.

    joined: what `ray.init` returned for a cluster, which is then used instead, and stays.
    Yields the session folder and the addresses of dashboard and metrics. At the end all of a Ray that was started here
    is gone but its session folder.
    """
    import ray

    context = joined or start_ray(config, placement, dashboard)
    found = addresses(context)
    if joined is None:
        note_session(folder, found[0])
    try:
        yield found
    finally:
        ray.shutdown()
        if joined is None:
            end_processes(found[0])


def start_ray(config: Config, placement: Placement, dashboard: bool) -> Any:
    """Start a Ray of one's own, which listens on the loopback interface alone. Return what `ray.init` does."""
    require_token()
    # Off by default, and without it vLLM's engine process outlives a killed actor.
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
    sessions = sessions_folder()
    os.environ["TMPDIR"] = str(sessions.parent)  # libraries look for code they have compiled under foreseeable names

    shares = (*placement.rollouts, *placement.learners)
    with out_of_the_terminals_reach():
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
            _temp_dir=str(sessions),
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


def sessions_folder() -> Path:
    """Return a folder for Ray's sessions. Ray lets everybody write to it: it stands in one that is the user's alone."""
    folder = private_folder() / "ray"
    return folder if len(str(folder)) <= LONGEST else private_folder("/tmp") / "ray"


def addresses(context: Any) -> tuple[Path, str, str]:
    """Return session folder, dashboard and metrics of this node."""
    node = context.address_info
    return Path(node["session_dir"]), context.dashboard_url, f"{node['node_ip_address']}:{node['metrics_export_port']}"


def note_session(folder: Path, session: Path) -> None:
    """Note in a folder which session was started for it."""
    replace_text(folder / NOTE, str(session))


def clear_session(folder: Path) -> None:
    """End what is left of the last session noted in a folder, and delete its files. The folder must be locked."""
    note = folder / NOTE
    if not note.exists():
        return
    session = Path(note.read_text())
    if session.name.startswith("session_") and session.parent.name == "ray":
        end_processes(session)
        shutil.rmtree(session, ignore_errors=True)
    note.unlink()


def end_processes(session: Path) -> None:
    """Kill what is left of a session and wait until it is gone. Ray's workers notice the end of their servers by timers
    that follow the date: where the clock was set back, they notice it as much later.
    """
    dying = list[psutil.Process]()
    for process in psutil.process_iter(["name"]):
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):  # it has ended; it is another user's
            if _belongs(process, session):
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


def _belongs(process: psutil.Process, session: Path) -> bool:
    if process.info["name"] in SERVERS:
        return any(str(session) in argument for argument in process.cmdline())
    return process.info["name"].startswith(WORKERS) and any(
        Path(file.path).is_relative_to(session) for file in process.open_files()
    )
