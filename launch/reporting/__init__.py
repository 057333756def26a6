"""Reports of runs and sweeps: `write` makes one; `attempt` and `conclusion` never raise an error."""

import os
from pathlib import Path

from actors.storage.files import replace_text
from conf.command import near
from conf.errors import BadInput
from launch.reporting import run_conclusion, sweep_conclusion
from launch.reporting.history import compare, is_sweep, read_run, read_sweep
from launch.reporting.wording import SPACE

FOOTER = b"Made by microbudget-rl"
"""Text that every page contains. A comparison never replaces a file without it."""


def write(*folders: Path) -> Path:
    """Write report.html and report.md into the folder of a run or a sweep, or comparison.html and comparison.md next to
    several of them. Return the page. Raises BadInput for a folder that is neither, and if a comparison would replace
    other files.
    """
    from launch.reporting.page import run_report, sweep_report  # matplotlib takes a second to import

    place = folders[0] / "report.html"
    if len(folders) > 1:
        sweep = compare(list(folders))
        report, place = sweep_report(sweep), sweep.folder / "comparison.html"
        ours = place.is_file() and FOOTER in place.read_bytes()
        if not ours and (others := [*filter(os.path.lexists, (place, place.with_suffix(".md")))]):
            raise BadInput(f"{others[0]} is not one of our reports and would be replaced: move it away")
    else:
        report = sweep_report(read_sweep(folders[0])) if is_sweep(folders[0]) else run_report(read_run(folders[0]))
    replace_text(place.with_suffix(".md"), report.markdown)
    replace_text(place, report.html)
    return place


def attempt(folder: Path) -> str:
    """Write the report of a run or a sweep and return its path, or the reason for its absence: a finished run does not
    fail because of its report.
    """
    try:
        return near(write(folder))
    except Exception as error:
        return f"none ({type(error).__name__}: {error}); try again: python launch/report.py {folder}"


def conclusion(folder: Path) -> str:
    """Return the conclusion of a run's or a sweep's report for the screen, or the reason for its absence."""
    try:
        if is_sweep(folder):
            return sweep_conclusion.conclude(read_sweep(folder)).replace(SPACE, " ")
        run = read_run(folder)
        return run_conclusion.conclude(run, run_conclusion.change(run)).replace(SPACE, " ")
    except Exception as error:
        return f"No conclusion ({type(error).__name__}: {error})"
