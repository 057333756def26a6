"""The functions that a worker process runs, by name. None is trusted to end or to use little memory.

`compare`: verifies (gold, answer) by the rules of `rewards.verify`
`readable`: returns whether a gold answer can be read
`reasoning_gym`: lets the library score an answer to one of its entries
`import:module:function`: a user's own part of the reward, in separate workers
"""

import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from actors.messages import Status
from rewards.functions import reward_part
from rewards.generators import score_entry
from rewards.verify import compare
from rewards.verify.comparison import readable

COMPARE = "compare"
READABLE = "readable"
REASONING_GYM = "reasoning_gym"
IMPORT = "import:"


@lru_cache(maxsize=64)
def resolve(name: str) -> Callable[..., Any]:
    """Return the function of a name, imported and used once, so that no call's deadline pays for that."""
    if name.startswith(IMPORT):
        return reward_part(name.removeprefix(IMPORT))
    if name == REASONING_GYM:
        import reasoning_gym  # noqa: F401

        return score_entry
    compare(r"\sqrt{2}", r"\frac{2}{\sqrt{2}}")
    return readable if name == READABLE else compared


def compared(gold: str, answer: str) -> Status:
    """Return the status of an answer: wrong if a library raises, or a policy would learn to make it raise."""
    try:
        return compare(gold, answer)
    except MemoryError:
        raise
    except Exception:
        return Status.WRONG


def folder_of(name: str) -> Path:
    """Return the folder of the module that a user's function is in."""
    module = sys.modules[name.removeprefix(IMPORT).partition(":")[0]]
    return Path(module.__file__ or "").parent
