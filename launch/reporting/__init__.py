"""Reports of runs and sweeps: `write` makes one, `attempt` and `conclusion` do so where no failure may end a run."""

import os
from pathlib import Path

from actors.storage.files import replace_text
from conf.command import near
from conf.errors import BadInput
from launch.reporting import sweep_verdict, verdict
from launch.reporting.history import compare, is_sweep, read_run, read_sweep
from launch.reporting.wording import SPACE

FOOTER = b"Made by microbudget-rl"
"""Of every page, by which one that may be replaced is known."""


def write(*folders: Path) -> Path:
    """Write report.html and report.md into the folder of a run or a sweep, or comparison.html and comparison.md beside
    several of them; the page. Raises BadInput for a folder that is neither, and if there is a comparison of another
    kind.
    """
    from launch.reporting.page import run_report, sweep_report  # matplotlib takes a second to come

    if len(folders) > 1:
        sweep = compare(list(folders))
        report, place = sweep_report(sweep), sweep.folder / "comparison.html"
        ours = place.is_file() and FOOTER in place.read_bytes()
        if not ours and (others := [*filter(os.path.lexists, (place, place.with_suffix(".md")))]):
            raise BadInput(f"{others[0]} is not one of our reports, which would replace it: move it away")
    elif is_sweep(folders[0]):
        report, place = sweep_report(read_sweep(folders[0])), folders[0] / "report.html"
    else:
        report, place = run_report(read_run(folders[0])), folders[0] / "report.html"
    replace_text(place.with_suffix(".md"), report.markdown)
    replace_text(place, report.html)
    return place


def attempt(folder: Path) -> str:
    """Write the report of a run or a sweep and return where it is, or why there is none: a run that is over does not
    fail for its report.
    """
    try:
        return near(write(folder))
    except Exception as error:
        return f"none ({type(error).__name__}: {error}); try again: python launch/report.py {folder}"


def conclusion(folder: Path) -> str:
    """Return the conclusion of a run's or a sweep's report for the screen, or why there is none."""
    try:
        if is_sweep(folder):
            return sweep_verdict.verdict(read_sweep(folder)).replace(SPACE, " ")
        run = read_run(folder)
        return verdict.verdict(run, verdict.change(run)).replace(SPACE, " ")
    except Exception as error:
        return f"No conclusion ({type(error).__name__}: {error})"
