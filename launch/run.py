"""`python launch/run.py conf=NAME [key=value …]`: plan a run, start or resume it, watch it to its end."""

import logging
import os
import signal
import socket
import sys
import time
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from rich.console import Console

from actors.placement import Placement, Share
from conf.errors import BadInput
from conf.load import load
from conf.schema import Config, DashboardConfig
from launch.machine import detect
from launch.plan import make_plan, refusal
from launch.plan_view import render
from launch.result import describe
from launch.resume import claim, open_folder, settle

if TYPE_CHECKING:
    from actors.coordinator_actor import RunRequest

EXIT_CODES = {"completed": 0, "budget_exhausted": 0, "failed": 1, "halted": 3}
POLL_S = 0.5
CLOSE_S = 10.0

OBJECT_STORE_BYTES = 512 * 2**20
"""Groups and batches are a few megabytes; Ray's default would take a third of the host's memory."""


def main(arguments: list[str]) -> int:
    """The exit code: 0 done, 1 failed, 2 bad input, 3 halted, 130 or 143 interrupted."""
    started_at = time.time()
    console = Console()
    try:
        config = load(arguments)
        machine = detect(config.device)
        settle(config, machine)
        plan = make_plan(config, machine)
        if config.plan:
            console.print(render(plan))
            return 0
        refusal(plan)
        folder = open_folder(config)
        console.print(render(plan))
        request = prepare(config, plan.placement, folder, started_at)
    except BadInput as error:
        print(f"run.py: {error}", file=sys.stderr)
        return 2
    return carry_out(request, console)


def prepare(config: Config, placement: Placement, folder: Path, started_at: float) -> "RunRequest":
    """Find model and data, check them, and only then touch the run folder."""
    from transformers import AutoTokenizer

    from actors.coordinator_actor import RunRequest
    from conf.adapters import check_adapter
    from conf.models import locate
    from rewards.problems import load as load_problems
    from rewards.problems import write_listing

    config.dashboard.port = free_port(config.dashboard)
    model_path = locate(config.model)
    check_adapter(config, model_path)
    problems = load_problems(config, AutoTokenizer.from_pretrained(model_path))
    dropped = "".join(f"; {count} dropped: {reason}" for reason, count in problems.dropped.items())
    print(f"Problems: {len(problems.train)} to train on, {len(problems.heldout)} held out{dropped}")
    claim(config, folder, problems)
    write_listing(folder / "problems-left-out.jsonl", problems.left_out)
    return RunRequest(config, str(folder.resolve()), model_path, placement, problems, started_at)


def free_port(dashboard: DashboardConfig) -> int:
    """The dashboard's port, or any free one for 0; BadInput if it is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((dashboard.host, dashboard.port))
        except OSError as error:
            raise BadInput(
                f"dashboard.port={dashboard.port} on {dashboard.host} cannot be used ({error.strerror}): stop the "
                f"other run or Ray at work here, or give dashboard.port=0 for any free port"
            ) from error
        return int(probe.getsockname()[1])


def carry_out(request: "RunRequest", console: Console) -> int:
    """Start Ray and the coordinator, show progress, pass signals on; the exit code."""
    # Off by default, and without it vLLM's engine process outlives a killed actor.
    os.environ["RAY_process_group_cleanup_enabled"] = "1"
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray

    from actors.coordinator_actor import CoordinatorActor, start_actor
    from launch.console import RunView

    config, placement = request.config, request.placement
    shares = (*placement.rollouts, *placement.learners)
    context = ray.init(
        address="local",
        num_cpus=sum(share.threads for share in shares),
        num_gpus=round(sum(share.gpus for share in shares)) or None,
        include_dashboard=True,
        dashboard_host=config.dashboard.host,
        dashboard_port=config.dashboard.port,
        object_store_memory=OBJECT_STORE_BYTES,
        log_to_driver=False,
        logging_level=logging.ERROR,
        namespace=config.run.name,
    )
    coordinator = start_actor(CoordinatorActor, "coordinator", Share(), request)
    received: list[int] = []

    def on_signal(number: int, _: FrameType | None) -> None:
        if received:
            os._exit(128 + number)
        received.append(number)
        coordinator.stop.remote(signal.Signals(number).name)

    # After ray.init, which installs a SIGTERM handler that kills everything at once.
    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGTERM, on_signal)

    scripts = Path(sys.executable).parent
    hints = {
        "Ray dashboard": f"http://{context.dashboard_url}",
        "its token": f"{scripts}/ray get-auth-token",
        "TensorBoard": f"{scripts}/tensorboard --logdir {request.folder}/tensorboard",
        "Run folder": request.folder,
    }
    for name, hint in hints.items():
        console.print(f"{name:<14} {hint}", soft_wrap=True, highlight=False)
    console.print()
    ending: ray.ObjectRef[dict[str, Any]] = coordinator.run.remote()
    with RunView(console) as view:
        while not ray.wait([ending], timeout=POLL_S)[0]:
            view.show(ray.get(coordinator.progress.remote()))
    summary = ray.get(ending)
    ray.wait([coordinator.close.remote()], timeout=CLOSE_S)  # an actor that hangs is killed by the shutdown
    ray.shutdown()

    for line in describe(summary):
        console.print(line, soft_wrap=True, highlight=False)
    if summary["status"] in ("failed", "halted"):
        logs = Path(context.address_info["session_dir"]) / "logs"
        console.print(f"More is in {request.folder}/failure.log and {logs}", soft_wrap=True, highlight=False)
    return 128 + received[0] if summary["status"] == "interrupted" else EXIT_CODES[summary["status"]]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
