"""Write the report of a run, of a sweep, or of several of them together.

    python launch/report.py FOLDER [FOLDER …]

Examples:

    python launch/report.py runs/quickstart            # write it again, also during the run
    python launch/report.py runs/r8 runs/r256          # compare runs: runs/comparison.html
    python launch/report.py runs/quickstart-sweep      # means over seeds with intervals
"""

import sys
from pathlib import Path

from microbudget_rl.conf.arguments import words_and_options
from microbudget_rl.conf.command import command
from microbudget_rl.conf.errors import printable
from microbudget_rl.launch.reporting import conclusion, write


@command("report.py", __doc__)
def main(arguments: list[str]) -> int:
    """Return the exit code: 0, or 2 for bad input."""
    folders = [Path(word) for word in words_and_options(arguments, {})[0]]
    print(f"Report: {write(*folders)}")
    if len(folders) == 1:
        print(printable(conclusion(folders[0])))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
