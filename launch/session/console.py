"""The live display of a run, and the addresses for watching it."""

import sys
from pathlib import Path

from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from microbudget_rl.actors.coordinator.context import RunRequest
from microbudget_rl.actors.formats import duration, money
from microbudget_rl.actors.messages import Progress
from microbudget_rl.conf.command import near


class RunView:
    """A live display on a terminal; elsewhere one line per update and per step of the start."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, refresh_per_second=2, transient=True)
        self._seen: tuple[str, str, float] | None = None
        self._shown = set[str]()

    def __enter__(self) -> "RunView":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, progress: Progress) -> None:
        for what, score in progress.scores.items():
            if what not in self._shown:
                self._console.print(f"{what} pass@1 {score:.3f}")
                self._shown.add(what)
        phase = f"{progress.phase.replace('_', ' '):<9}"
        seen = (progress.phase, progress.doing, progress.latest.get("update", 0.0))
        if self._console.is_terminal:
            self._live.update(render_progress(progress))
        elif seen != self._seen:
            line = f"[{duration(progress.spent)}] {phase} {' · '.join(figures(progress))}"
            self._console.print(line.rstrip())
        self._seen = seen


def render_progress(progress: Progress) -> RenderableType:
    """Return the bar over the budget, and the latest figures below it."""
    total = progress.spent + progress.left
    bar = Table.grid(expand=True, padding=(0, 1))
    bar.add_column()
    bar.add_column(ratio=1)
    bar.add_column(justify="right")
    bar.add_row(
        Text(f"{progress.phase.replace('_', ' '):<9}", style="bold cyan"),
        ProgressBar(total=total, completed=min(progress.spent, total)),
        f"{duration(progress.left)} left of {duration(total)}",
    )
    return Group(bar, Columns(figures(progress), padding=(0, 2)))


def figures(progress: Progress) -> list[str]:
    """Return the step of the start, or the latest update's reward, length and speed."""
    row, first = progress.latest, "the engine generates the first update's responses"
    if not row:
        return [*filter(None, [progress.doing or first * (progress.phase == "training")])]
    reward, accuracy = row["reward/mean"], row["reward/accuracy"]
    more = f" (about {progress.updates_left} more)" if progress.updates_left else ""
    speed = f"{row['rollout/tokens_per_second']:.0f} tok/s" if progress.phase == "training" else ""
    return [
        f"update {row['update']:.0f}{more}",
        *([f"reward {reward:.2f}"] if abs(reward - accuracy) >= 0.005 else []),
        f"accuracy {accuracy:.2f}",
        f"length {row['response/mean_length']:.0f}",
        f"groups with variance {1 - row['groups/zero_variance']:.0%}",
        f"unanimous errors {row['errors/unanimous']:.0%}",
        f"useful tokens {row['tokens/useful_fraction']:.0%}",
        *([f"entropy {row['policy/entropy']:.2f}"] if "policy/entropy" in row else []),
        *filter(None, [speed if progress.answers else "engine restarts"]),
        *([f"cost {money(progress.cost)}"] if progress.cost is not None else []),
        *filter(None, [progress.doing]),
    ]


def show_places(console: Console, request: RunRequest, dashboard: str) -> None:
    """Print the addresses for watching the run."""
    scripts = Path(sys.executable).parent
    board = f"{near(scripts / 'tensorboard')} --logdir {near(request.folder.parent)}"
    places = {
        "Ray dashboard": f"http://{dashboard}",
        "  its token": f"{near(scripts / 'ray')} get-auth-token",
        **({"TensorBoard": board} if "tensorboard" in request.config.run.report_to else {}),
        "Run folder": near(request.folder),
    }
    for name, place in places.items():
        console.print(f"{name:<14} {place}")
    console.print()
