"""`python launch/report.py FOLDER [FOLDER …]`: the report of a run, of a sweep, or of several of them together."""

import os
import sys
from pathlib import Path

from conf.command import command
from conf.errors import BadInput
from launch.reports import write


@command("report.py")
def main(arguments: list[str]) -> int:
    """Return the exit code: 0, or 2 for bad input."""
    if not arguments:
        raise BadInput("name the folder of a run or of a sweep, or several to compare: runs/quickstart")
    folders = [Path(argument) for argument in arguments]
    for folder in folders:
        if not os.path.isdir(folder):
            raise BadInput(f"there is no folder {folder}")
    print(f"Report: {write(*folders)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
