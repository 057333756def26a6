"""What libraries write to stderr while an engine starts, kept from the screen."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def aside() -> Iterator[None]:
    """Have this process, and what it starts, write to stderr into a file, which an error names and which else is gone.

    What is started meanwhile goes on writing there: warnings about settings that are meant, and bars of progress.
    """
    screen = os.dup(2)
    with tempfile.NamedTemporaryFile(prefix="microbudget-engine-", suffix=".log", delete=False) as file:
        os.dup2(file.fileno(), 2)
    try:
        yield
    except BaseException:
        os.dup2(screen, 2)
        print(f"What the engine said is in {file.name}", file=sys.stderr)
        raise
    else:
        os.dup2(screen, 2)
        os.unlink(file.name)
    finally:
        os.close(screen)
