"""Ships a function that no module holds, such as a notebook's, by value to the reward workers of one command.

Its setting is `python.DIGEST:NAME`. It is a file in a private folder of that command: no run folder contains code.
"""

import io
import os
import pickle
import re
import sys
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from types import CodeType
from typing import Any

from microbudget_rl.conf.errors import BadInput, in_brief

FOLDER, CALLER = "MICROBUDGET_FUNCTIONS", "MICROBUDGET_CALLER"
"""Environment variables of a command: the folder of its shipped functions, and the process that has called it."""
SHIPPED = re.compile(r"python\.([0-9a-f]{32}):(\w+)")


def ship(function: Any, shipped: dict[str, bytes]) -> str:
    """Return a function's setting. Unless a module holds it, add its copy to those shipped, or raise BadInput."""
    module, place = getattr(function, "__module__", None), getattr(function, "__qualname__", "")
    if module not in (None, "__main__") and getattr(sys.modules.get(module), place, None) is function:
        return f"{module}:{place}"
    name = getattr(function, "__name__", type(function).__name__).strip("<>")
    if not callable(function):
        raise BadInput(f"reward: {function!r} is no function and no module:function: give one")
    try:
        if os.environ.get("RAY_ADDRESS"):
            raise ValueError("RAY_ADDRESS names a cluster, whose other machines do not have this one's files")
        import cloudpickle

        content, key = cloudpickle.dumps(function), digest(function)
    except Exception as error:  # a value's own method may raise anything
        remedy = f"save it in a module and give 'module:{name}'"
        raise BadInput(f"reward: '{name}' cannot be shipped to reward workers ({in_brief(error)}): {remedy}") from error
    shipped[key] = content
    return f"python.{key}:{name}"


def load(key: str, expected: str, name: str) -> Callable[..., Any]:
    """Return a function that was shipped to this command. Raises BadInput, naming the key, if it was not."""
    folder = os.environ.get(FOLDER)  # without it, no file of the working folder may stand for a function
    if not folder or not (file := Path(folder, expected)).is_file():
        where = f"resume it from Python, as microbudget_rl.open(FOLDER).resume(reward={name})"
        raise BadInput(f"{key}: '{name}' is a function of a Python session, which no run folder contains: {where}")
    return pickle.loads(file.read_bytes())


def digest(function: Any) -> str:
    """Return a digest of a function's code without its place, and of all that it uses, as cloudpickle copies it."""
    from cloudpickle import Pickler

    script = getattr(function, "__globals__", {}).get("__file__")

    class Digest(Pickler):
        def persistent_id(self, value: Any) -> Any:
            """Return what stands for a value whose copy would say where the code is, or differ between processes."""
            if isinstance(value, CodeType) and value.co_filename:  # which what stands for it lacks
                return value.replace(co_filename="", co_name="", co_qualname="", co_firstlineno=0, co_linetable=b"")
            if isinstance(value, set | frozenset):
                return sorted(map(repr, value))
            return "" if isinstance(value, str) and value == script else None

    Digest(file := io.BytesIO()).dump(function)
    return blake2b(file.getvalue(), digest_size=16).hexdigest()
