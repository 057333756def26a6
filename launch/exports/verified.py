"""Writing an export of any format, and looking whether it is what was trained."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from launch.exports import verification
from launch.exports.adapter import write_adapter
from launch.exports.gguf_file import write_gguf
from launch.exports.merged import write_merged
from launch.trained.policy import Trained


def write_verified(
    trained: Trained, form: str, kind: str, name: str, folder: Path, console: Console
) -> verification.Verification:
    """Write an export into an empty folder, verify it, and print by how much it differs. Return what was found."""
    load_export = write(trained, form, kind, name, folder)
    found = verification.verify(trained, load_export, q8_0=kind == "q8_0")
    console.print(table(found))
    return found


def write(trained: Trained, form: str, kind: str, name: str, folder: Path) -> Callable[[], Any]:
    """Write an export into an empty folder. Return what loads it."""
    if form == "merged":
        write_merged(trained, folder, whole=kind == "float32")
        return lambda: verification.load_merged(folder)
    if form == "gguf":
        file = folder / f"{name}-{kind}.gguf"
        write_gguf(trained, kind, file)
        return lambda: verification.load_gguf(file)
    write_adapter(trained, folder)
    return lambda: verification.load_adapter(trained, folder)


def table(found: verification.Verification) -> Table:
    """Return the differences as a table."""
    shown = Table(title=f"|Δ log p| of {found.tokens} held-out tokens, nats", title_justify="left")
    shown.add_column("between")
    for name in ("mean", "99 % below", "largest"):
        shown.add_column(name, justify="right")
    for each in found.differences:
        shown.add_row(each.between, *(f"{value:.5f}" for value in (each.mean, each.p99, each.largest)))
    return shown
