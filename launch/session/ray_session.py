"""A Ray of one's own, and its session folders: hundreds of megabytes of logs each, which Ray itself never deletes."""

import contextlib
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from actors.rollout.shared_memory import delete_orphans
from actors.runtime.placement import Placement
from actors.storage.files import replace_text
from conf.schema import Config
from launch.plan.host_needs import OBJECT_STORE_BYTES

NOTE = "ray-session"

SERVERS = ("raylet", "gcs_server")
"""Ray's processes that all others of a session follow into death."""

DEATH_S = 10.0
"""That those others are waited for: until then they hold memory."""


@contextlib.contextmanager
def ray_session(config: Config, placement: Placement, folder: Path, dashboard: bool) -> Iterator[tuple[Path, str, str]]:
    """Ray on this machine with the placement's resources; its session folder, noted in `folder`, and the addresses of
    the dashboard and of the metrics. At the end all of it is gone but the session folder.
    """
    # Off by default, and without it vLLM's engine process outlives a killed actor.
    os.environ["RAY_process_group_cleanup_enabled"] = "1"
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray

    shares = (*placement.rollouts, *placement.learners)
    context: Any = ray.init(
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
    )
    found = addresses(context)
    note_session(folder, found[0])
    try:
        yield found
    finally:
        ray.shutdown()
        delete_orphans(found[0], also_of_the_living=True)


@contextlib.contextmanager
def joined_session(context: Any) -> Iterator[tuple[Path, str, str]]:
    """The same of a cluster that was joined, which stays. context: what `ray.init` returned."""
    import ray

    found = addresses(context)
    try:
        yield found
    finally:
        ray.shutdown()
        delete_orphans(found[0])


def addresses(context: Any) -> tuple[Path, str, str]:
    """Session folder, dashboard and metrics of this node."""
    node = context.address_info
    return Path(node["session_dir"]), context.dashboard_url, f"{node['node_ip_address']}:{node['metrics_export_port']}"


def note_session(run: Path, session: Path) -> None:
    """Write into a run's folder which session it has started."""
    replace_text(run / NOTE, str(session))


def clear_session(run: Path) -> None:
    """End what is left of the run's last session, delete its folder and forget it. For the run's only process."""
    note = run / NOTE
    if not note.exists():
        return
    session, dying = Path(note.read_text()), list[psutil.Process]()
    if session.name.startswith("session_") and session.parent.name == "ray":
        for process in psutil.process_iter(["name", "cmdline"]):
            mine = any(str(session) in argument for argument in process.info["cmdline"] or ())
            if mine and process.info["name"] in SERVERS:
                with contextlib.suppress(psutil.NoSuchProcess):
                    dying += [process, *process.children(recursive=True)]
                    process.kill()
        psutil.wait_procs(dying, timeout=DEATH_S)
        delete_orphans(session, also_of_the_living=True)
        shutil.rmtree(session, ignore_errors=True)
    note.unlink()
