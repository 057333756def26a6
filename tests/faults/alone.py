"""The tests' real runs for commands of their own, without pytest."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.conftest import boxing_model, start
from tests.faults.conftest import Run, launcher


class Folders:
    """What the fixtures need of pytest."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def mktemp(self, name: str) -> Path:
        (self._root / name).mkdir()
        return self._root / name


@contextmanager
def runs(disk: Path | None = None) -> Iterator[Callable[..., Run]]:
    """Starts runs of the tiny model by name, with further settings; in the end all that is left of them goes.

    disk: a folder to do so in.
    """
    with tempfile.TemporaryDirectory(prefix="faults-", dir=disk) as root:
        folders = Folders(Path(root))
        model = boxing_model._get_wrapped_function()(folders)
        yield from launcher(start._get_wrapped_function()(model, folders))
