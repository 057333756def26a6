"""sweep.json, which holds the status of every run and is whole after any crash."""

from actors.storage.documents import SweepDocument, SweepEntry
from actors.storage.files import read_document, write_document
from conf.errors import BadInput
from launch.sweep_runs.grid import Grid


def restore_statuses(grid: Grid) -> None:
    """Take over the statuses of an earlier process. Raise BadInput if it recorded a run that is not in this sweep."""
    runs = {run.name: run for run in grid.runs}
    known = read_document(grid.folder / "sweep.json", SweepDocument)
    for entry in known.cells if known else ():
        if (run := runs.get(entry.cell)) is None:
            raise BadInput(
                f"sweep {grid.name!r} has a run {entry.cell} that this command leaves out: "
                "give all its axes, or sweep.name=OTHER"
            )
        run.status, run.reason = entry.status, entry.reason


def write_record(grid: Grid) -> None:
    entries = [
        SweepEntry(cell=run.name, overrides=run.overrides, run=run.name, status=run.status, reason=run.reason)
        for run in grid.runs
    ]
    document = SweepDocument(name=grid.name, conf=grid.conf, axes=grid.axes, cells=entries)
    write_document(grid.folder / "sweep.json", document)
