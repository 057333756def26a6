"""Ships a function that no module holds, such as a notebook's, by value to the reward workers of one command.

Its setting is `python:NAME:DIGEST`; the digest says whether two functions are the same. The function is in a file of
that name in a private folder, whose path only that command's processes have: no run folder contains code.
"""

import io
import os
import sys
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from types import CodeType
from typing import Any

from microbudget_rl.conf.errors import BadInput, in_brief
from microbudget_rl.conf.schema.reward import SHIPPED

FOLDER = "MICROBUDGET_FUNCTIONS"
"""Environment variable with the folder of a command's shipped functions."""

CODE = (
    *("code", "consts", "names", "varnames", "freevars", "cellvars", "flags", "exceptiontable"),
    *("argcount", "posonlyargcount", "kwonlyargcount"),
)
"""Attributes of code, without `co_`, that say what it does. Its file, lines and name do not."""


def place_of(function: Any) -> str:
    """Return `module:name` of a function that a module holds; empty if it has to be shipped."""
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", "")
    held = module not in (None, "__main__") and getattr(sys.modules.get(module), name, None) is function
    return f"{module}:{name}" if held else ""


def ship(function: Callable[..., Any]) -> tuple[str, bytes]:
    """Return the setting of a function, and the content of its file. Raises BadInput if it cannot be shipped."""
    name = getattr(function, "__name__", type(function).__name__).strip("<>")
    remedy = f"save it in a module and give 'module:{name}'"
    if address := os.environ.get("RAY_ADDRESS"):
        raise BadInput(f"reward: '{name}' cannot be shipped to the cluster at RAY_ADDRESS={address}: {remedy}")
    try:
        import cloudpickle

        return f"{SHIPPED}:{name}:{digest(function)}", cloudpickle.dumps(function)
    except Exception as error:  # a value's own method may raise anything
        remedy += ", or install microbudget-rl[cpu] or [cuda]" if isinstance(error, ImportError) else ""
        raise BadInput(f"reward: '{name}' cannot be shipped to reward workers ({in_brief(error)}): {remedy}") from error


def load(key: str, reference: str) -> Callable[..., Any]:
    """Return a function that was shipped to this command. Raises BadInput, naming the key, if it was not."""
    _, name, expected = reference.split(":")
    folder = os.environ.get(FOLDER)  # without it, no file of the working folder may stand for a function
    file = Path(folder or "", expected)
    if not folder or not file.is_file():
        raise BadInput(
            f"{key}: '{name}' is a function of a Python session, which no run folder contains: resume it from Python, "
            f"as microbudget_rl.open(FOLDER).resume(reward={name})"
        )
    import cloudpickle

    function: Callable[..., Any] = cloudpickle.loads(file.read_bytes())
    return function


def digest(function: Callable[..., Any]) -> str:
    """Return a digest of a function's code without its place, and of all that it uses, as cloudpickle copies it.

    Raises an error for a value that cannot be copied, such as a lock.
    """
    import cloudpickle

    script = getattr(function, "__globals__", {}).get("__file__")

    class Digest(cloudpickle.Pickler):
        def persistent_id(self, value: Any) -> list[Any] | None:
            """Return what stands for a value whose copy would say where the code is, or differ between processes."""
            if isinstance(value, CodeType):
                return [getattr(value, f"co_{name}") for name in CODE]
            if isinstance(value, set | frozenset):
                return sorted(map(repr, value))
            return [] if isinstance(value, str) and value == script else None

    Digest(file := io.BytesIO()).dump(function)
    return blake2b(file.getvalue(), digest_size=16).hexdigest()
