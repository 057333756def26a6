"""`run.on_end`: what is done once a run has ended and all of it is written."""

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from conf.schema import Config

PATIENCE_S = 300.0
"""Seconds that the command may take. It comes after the end of the budget, and the machine may cost by the minute."""


class OnEnd:
    """Runs the command, however often it is called, once. Nothing that goes wrong with it changes how the run ends."""

    def __init__(self, config: Config, folder: Path) -> None:
        self._config = config
        self._folder = folder
        self._done = not config.run.on_end
        self._lock = threading.RLock()  # a signal may interrupt the call that holds it

    def __call__(self, summary: dict[str, Any], exit_code: int) -> None:
        """Run the command, or wait until another thread has. summary: that of the run."""
        with self._lock:
            if self._done:
                return
            self._done = True
            facts = {
                "MICROBUDGET_STATUS": summary["status"],
                "MICROBUDGET_REASON": summary["reason"],
                "MICROBUDGET_EXIT_CODE": str(exit_code),
                "MICROBUDGET_NAME": self._config.run.name,
                "MICROBUDGET_FOLDER": str(self._folder),
            }
            command, fault = self._config.run.on_end, ""
            try:
                code = subprocess.run(command, shell=True, env=os.environ | facts, timeout=PATIENCE_S).returncode
                fault = f"ended with exit code {code}" if code else ""
            except subprocess.TimeoutExpired:
                fault = f"was killed after {PATIENCE_S:.0f} s"
            except (OSError, ValueError) as error:  # no shell; a reason that no environment can hold
                fault = f"could not be run ({error})"
            if fault:
                print(f"run.on_end={command}: {fault}; the run itself is as said above", file=sys.stderr)
