"""The functions that a worker process runs, by name. None is trusted to end or to use little memory.

`compare`: verifies (gold, answer) by the rules of `rewards.verify`
`readable`: returns whether a gold answer can be read
`reasoning_gym`: lets the library score an answer to one of its entries
`render`: returns the length of a model's prompt for (problem, DataConfig, tokenizer)
`import:module:function`: a user's own part of the reward, in separate workers
"""

import importlib
import inspect
import json
import math
import sys
import traceback
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from actors.messages import Status
from conf.errors import BadInput, in_brief
from rewards.generators import score_entry
from rewards.verify.comparison import compare, readable

COMPARE = "compare"
READABLE = "readable"
REASONING_GYM = "reasoning_gym"
RENDER = "render"
IMPORT = "import:"

LARGEST = 1e6
"""Largest absolute reward. Advantages divide by the spread of a group, which overflows for 1e308."""

GIVEN = 3
"""Number of arguments by position: prompt, response and gold answer."""


class BadReward(Exception):
    """A user's function did not return a reward. The text continues a sentence that begins with the function's name."""


@lru_cache(maxsize=64)
def resolve(name: str) -> Callable[..., Any]:
    """Return the function of a name, imported and used once, so that no call's deadline pays for that."""
    if name.startswith(IMPORT):
        return reward_part(name.removeprefix(IMPORT))
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


def find(key: str, reference: str) -> Callable[..., Any]:
    """Import `module.path:function`, also from the working directory. Raises BadInput, naming the key.

    Call it where no signal arrives: in a worker process, or in another thread than the main one.
    """
    module, _, name = reference.partition(":")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)
    try:
        found = getattr(importlib.import_module(module), name)
    except BaseException as error:  # a user's own module may raise anything
        raise BadInput(
            f"{key}: cannot import '{reference}' ({in_brief(error)}): give module.path:function, importable from {here}"
        ) from error
    if not callable(found):
        raise BadInput(f"{key}: '{reference}' is a {type(found).__name__}, not a function")
    return found


def reward_part(reference: str) -> Callable[..., float]:
    """Return a user's function as (prompt, response, gold, columns) → reward; columns are the row's, as JSON.

    A call raises BadReward if it does not return a reward. A function gets the columns that it names, or all with `**`.
    Raises BadInput for a function that cannot be called like this.
    """
    function = find("reward.custom", reference)
    try:
        signature = inspect.signature(function)
        given = signature.bind_partial(*range(GIVEN)).arguments
    except (TypeError, ValueError) as error:
        raise BadInput(
            f"reward.custom: '{reference}' does not take three arguments ({error}): define it as "
            f"{reference.rpartition(':')[2]}(prompt, response, gold, **columns)"
        ) from error
    others = [one for name, one in signature.parameters.items() if name not in given]
    named = {one.name for one in others if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)}
    takes_all = any(one.kind is one.VAR_KEYWORD for one in others)

    def reward(prompt: str, response: str, gold: str, columns: str = "{}") -> float:
        row = json.loads(columns)
        chosen = {name: row[name] for name in row if name in named or (takes_all and name not in given)}
        try:
            signature.bind(prompt, response, gold, **chosen)
        except TypeError as error:
            raise BadReward(f"asks for a column that the data lack ({error}; they have {', '.join(row)})") from error
        try:
            value = function(prompt, response, gold, **chosen)
        except MemoryError:
            raise
        except BaseException as error:  # SystemExit too: the function must not end its worker
            raise BadReward(f"raised {type(error).__name__}: {error}{_place(error)}") from error
        return number(value)

    return reward


def _place(error: BaseException) -> str:
    """Return the line of the user's function that raised an error or led to it."""
    own = traceback.extract_tb(error.__traceback__)[1:2]
    return "".join(f" ({Path(frame.filename).name}, line {frame.lineno})" for frame in own)


def number(value: Any) -> float:
    """Return a reward as a number. Raises BadReward for anything else, and for a value that would ruin an update."""
    remedy = "return one number per response"
    if inspect.isawaitable(value):
        getattr(value, "close", int)()  # or Python warns that nothing awaited it
        remedy = f"define it without async, and {remedy}"
    try:
        found = float("a text" if isinstance(value, str | bytes) else value)
    except OverflowError:  # a whole number beyond 1e308
        found = math.inf
    except Exception as error:
        raise BadReward(f"returned {'None' if value is None else f'a {type(value).__name__}'}: {remedy}") from error
    if not abs(found) <= LARGEST:
        raise BadReward(f"returned {found:g}: return a finite number from -{LARGEST:,.0f} to {LARGEST:,.0f}")
    return found
