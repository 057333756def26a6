"""Reports of runs and sweeps: `write` makes one; `attempt` and `conclusion` never raise an error."""

import os
from pathlib import Path

from microbudget_rl.actors.results import read_run
from microbudget_rl.actors.storage.files import replace_text
from microbudget_rl.conf.command import as_typed, near
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.launch.reporting import run_conclusion, sweep_results
from microbudget_rl.launch.reporting.history import is_sweep, read_sweep, read_together
from microbudget_rl.launch.reporting.paper.conclusion import conclude
from microbudget_rl.launch.reporting.paper.results import read_results
from microbudget_rl.launch.reporting.wording import SPACE

FOOTER = b"Made by microbudget-rl"
"""Text that every report contains. A file without it is never replaced."""


def write(*folders: Path) -> Path:
    """Write report.html and report.md into the folder of a run or a sweep, or comparison.html and comparison.md next to
    several of them. Return the page. Raises BadInput for a folder that is neither, and if it would replace other files.
    """
    from microbudget_rl.launch.reporting.page import run_report, sweep_report  # matplotlib takes a second to import

    place = folders[0] / "report.html"
    if len(folders) > 1:
        sweep = read_together(list(folders))
        report, place = sweep_report(sweep), sweep.folder / "comparison.html"
    else:
        report = sweep_report(read_sweep(folders[0])) if is_sweep(folders[0]) else run_report(read_run(folders[0]))
    texts = {place: report.html, place.with_suffix(".md"): report.markdown}
    for file in filter(os.path.lexists, texts):
        if file.is_symlink() or not file.is_file() or FOOTER not in file.read_bytes():
            raise BadInput(f"{file} is not one of our reports and would be replaced: move it away")
    for file, text in texts.items():
        replace_text(file, text)
    return place


def attempt(folder: Path) -> str:
    """Write a report and return its path, or the reason for its absence: no finished run fails for its report."""
    try:
        return near(write(folder))
    except Exception as error:
        return f"none ({type(error).__name__}: {error}); try again: {as_typed('python launch/report.py')} {folder}"


def conclusion(folder: Path) -> str:
    """Return the conclusion of a run's or a sweep's report for the screen, or the reason for its absence."""
    try:
        if is_sweep(folder):
            sweep = read_sweep(folder)
            results = read_results(sweep)
            said = conclude(results) if results else sweep_results.conclude(sweep)
            return said.replace(SPACE, " ")
        run = read_run(folder)
        return run_conclusion.conclude(run, run_conclusion.effect(run)).replace(SPACE, " ")
    except Exception as error:
        return f"No conclusion ({type(error).__name__}: {error})"
