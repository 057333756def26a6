"""Real tiny runs with faults. Prints a line per case.

python -m tests.faults kill                        kill -9 of every process
python -m tests.faults inject [FAULT[:MOMENT] …]   as root: stopped processes, disks
"""

import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.conftest import boxing_model, start
from tests.faults import injection
from tests.faults.conftest import Run, launcher

COMMANDS = {"kill": injection.kill, "inject": injection.inject}


class Folders:
    """The part of pytest that the fixtures need."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def mktemp(self, name: str) -> Path:
        (self._root / name).mkdir()
        return self._root / name


@contextmanager
def runs(disk: Path | None = None) -> Iterator[Callable[..., Run]]:
    """Yield a function that starts runs of the tiny model by name and settings; end the rest of them at the end.

    disk: the folder for them.
    """
    with tempfile.TemporaryDirectory(prefix="faults-", dir=disk) as root:
        folders = Folders(Path(root))
        model = boxing_model._get_wrapped_function()(folders)
        yield from launcher(start._get_wrapped_function()(model, folders))


if __name__ == "__main__":
    name, *arguments = sys.argv[1:] or [""]
    if name not in COMMANDS:
        sys.exit(__doc__)
    sys.exit(COMMANDS[name](runs, arguments))
