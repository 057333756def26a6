"""The functions that a worker process runs, by name. None is trusted to end or to use little memory.

`compare`: verifies (gold, answer) by the rules of `rewards.verify`
`readable`: returns whether a gold answer can be read
`reasoning_gym`: lets the library score an answer to one of its entries
`render`: returns the length of a model's prompt for (problem, DataConfig, tokenizer)
`import:module:function`: a user's own part of the reward, in separate workers
"""

import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from actors.messages import Status
from conf.schema.reward import RemoteConfig
from rewards.generators import score_entry
from rewards.user_function import UserFunction
from rewards.verify.comparison import compare, readable

COMPARE = "compare"
READABLE = "readable"
REASONING_GYM = "reasoning_gym"
RENDER = "render"
IMPORT = "import:"


@lru_cache(maxsize=64)
def resolve(name: str, remote: RemoteConfig | None = None) -> Callable[..., Any]:
    """Return the function of a name, imported and used once, so that no call's deadline pays for that. remote: limits
    of a user's functions that use the network.
    """
    if name.startswith(IMPORT):
        return UserFunction(name.removeprefix(IMPORT), remote)
    if name == RENDER:
        import transformers.tokenization_utils_tokenizers  # noqa: F401

        from rewards.problems.chat import render_prompt

        return lambda *given: len(render_prompt([], *given))
    if name == REASONING_GYM:
        import reasoning_gym  # noqa: F401

        return score_entry
    compare(r"\sqrt{2}", r"\frac{2}{\sqrt{2}}")
    return readable if name == READABLE else compared


def compared(gold: str, answer: str) -> Status:
    """Return the status of an answer: wrong if a library raises, so that no policy learns to make it raise."""
    try:
        return compare(gold, answer)
    except MemoryError:
        raise
    except Exception:
        return Status.WRONG


def folder_of(name: str) -> Path | None:
    """Return the folder of the module that a user's function is in; None for a module without a file."""
    file = getattr(sys.modules[name.removeprefix(IMPORT).partition(":")[0]], "__file__", None)
    return Path(file).parent if file else None
