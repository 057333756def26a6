"""The live display of a run."""

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from actors.messages import Progress

REFRESH_PER_SECOND = 2


class RunView:
    """A live line over the budget on a terminal; elsewhere one line per update and per phase."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, refresh_per_second=REFRESH_PER_SECOND, transient=True)
        self._seen: tuple[str, int] = ("", 0)

    def __enter__(self) -> "RunView":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, progress: Progress) -> None:
        if self._console.is_terminal:
            self._live.update(render(progress))
        elif (progress.phase, progress.updates) != self._seen:
            self._console.print(describe(progress), soft_wrap=True)
        self._seen = (progress.phase, progress.updates)


def render(progress: Progress) -> RenderableType:
    """Return the bar over the budget, and a line on where training stands."""
    total = progress.spent + progress.left
    bar = Table.grid(expand=True, padding=(0, 1))
    bar.add_column()
    bar.add_column(ratio=1)
    bar.add_column(justify="right")
    bar.add_row(
        Text(f"{progress.phase:<9}", style="bold cyan"),
        ProgressBar(total=total, completed=min(progress.spent, total)),
        f"{clock(progress.spent)} of {clock(total)}, {clock(progress.left)} left",
    )
    page = Table.grid(expand=True)
    page.add_row(bar)
    page.add_row(Text(figures(progress), no_wrap=True, overflow="ellipsis"))
    return page


def describe(progress: Progress) -> str:
    return f"[{clock(progress.spent)}] {progress.phase:<9} {figures(progress)}".rstrip()


def figures(progress: Progress) -> str:
    """Return the latest update's reward, accuracy, length and speed in one line."""
    if not progress.latest:
        return ""
    row = progress.latest
    more = f" (about {progress.updates_left} more)" if progress.updates_left is not None else ""
    return " · ".join(
        [
            f"update {progress.updates}{more}",
            f"reward {row['reward/mean']:.2f}",
            f"accuracy {row['reward/accuracy']:.2f}",
            f"length {row['completion/mean_length']:.0f}",
            *([f"entropy {row['policy/entropy']:.2f}"] if "policy/entropy" in row else []),
            f"{row['rollout/tokens_per_second']:.0f} tok/s",
            *([f"cost {progress.cost:.2f}"] if progress.cost is not None else []),
            *([progress.notice] if progress.notice else []),
        ]
    )


def clock(seconds: float) -> str:
    """Format seconds as h:mm:ss, or m:ss below an hour."""
    whole = max(int(seconds), 0)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"
