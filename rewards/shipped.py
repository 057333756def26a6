"""Ships a function that no module holds, such as a notebook's, by value to the reward workers of one command.

Its setting is `python:NAME:DIGEST`; the digest says whether two functions are the same. The function is in a file of
that name in a private folder, whose path only that command's processes have: no run folder contains code.
"""

import copyreg
import dis
import os
import sys
from collections.abc import Callable, Iterator
from hashlib import blake2b
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any

from microbudget_rl.actors.storage.files import is_private
from microbudget_rl.conf.errors import BadInput, in_brief
from microbudget_rl.conf.schema.reward import SHIPPED

FOLDER = "MICROBUDGET_FUNCTIONS"
"""Environment variable with the folder of a command's shipped functions."""

ATOMS = (bool, int, float, complex, str, bytes, type(None), type(...))
"""Types whose `repr` says all."""

CODE = ("code", "names", "varnames", "freevars", "cellvars", "flags", "exceptiontable", "consts")
COUNTS = ("argcount", "posonlyargcount", "kwonlyargcount")
"""Attributes of code, without `co_`, that say what it does. Its file, lines and name do not."""


def place_of(value: Any) -> str:
    """Return `module:name` of a function or class that a module holds; empty if it has to be shipped."""
    if not isinstance(value, FunctionType | BuiltinFunctionType | type) or value.__module__ in (None, "__main__"):
        return ""
    found: Any = sys.modules.get(value.__module__)
    for name in value.__qualname__.split("."):
        found = getattr(found, name, None)
    return f"{value.__module__}:{value.__qualname__}" if found is value else ""


def ship(function: Callable[..., Any]) -> tuple[str, bytes]:
    """Return the setting of a function, and the content of its file. Raises BadInput if it cannot be shipped."""
    name = getattr(function, "__name__", type(function).__name__).strip("<>")
    remedy = f"save it in a module and give 'module:{name}'"
    if address := os.environ.get("RAY_ADDRESS"):
        raise BadInput(f"reward: '{name}' cannot be shipped to the cluster at RAY_ADDRESS={address}: {remedy}")
    try:
        import cloudpickle

        found, content = digest(function), cloudpickle.dumps(function)
        if digest(cloudpickle.loads(content)) != found:
            raise TypeError("its copy is not the same")
    except Exception as error:  # a value's own method may raise anything
        remedy += ", or install microbudget-rl[cpu] or [cuda]" if isinstance(error, ImportError) else ""
        raise BadInput(f"reward: '{name}' cannot be shipped to reward workers ({in_brief(error)}): {remedy}") from error
    return f"{SHIPPED}:{name}:{found}", content


def load(key: str, reference: str) -> Callable[..., Any]:
    """Return a function that was shipped to this command. Raises BadInput, naming the key, if it was not."""
    _, name, expected = reference.split(":")
    file = Path(os.environ.get(FOLDER, "nowhere"), expected)
    if file.is_file() and is_private(file.parent):
        import cloudpickle

        function: Callable[..., Any] = cloudpickle.loads(file.read_bytes())
        if digest(function) == expected:
            return function
    raise BadInput(
        f"{key}: '{name}' is a function of a Python session, which no run folder contains: resume it from Python, as "
        f"microbudget_rl.open(FOLDER).resume(reward={name})"
    )


def digest(function: Any) -> str:
    """Return a digest of a function's code without its place, constants, defaults, closure, and the globals it uses.

    Raises TypeError for a value that cannot be copied, such as an open file, and for one of a class of `__main__`.
    """
    found = blake2b(digest_size=16)
    for part in _parts(function, {}):
        found.update(f"{len(part)} {part}".encode("utf-8", "surrogatepass"))
    return found.hexdigest()


def _parts(value: Any, seen: dict[int, tuple[int, Any]]) -> Iterator[str]:
    """Yield texts that are the same for two values that do the same. seen: number and value by id, which stays so."""
    kind, inner = type(value), list[Any]()
    if kind in ATOMS:
        inner = [repr(value)]
    elif place := place_of(value) or (kind is ModuleType and value.__name__):
        inner = [place]
    elif kind in (frozenset, set):
        inner = sorted("|".join(_parts(each, {})) for each in value)
    elif kind is tuple:
        inner = [*value]
    elif kind is CodeType:
        inner = [getattr(value, f"co_{name}") for name in (*COUNTS, *CODE)]
    elif id(value) in seen:
        inner = ["again", seen[id(value)][0]]
    else:
        seen[id(value)] = len(seen), value
        inner = [*(value.items() if kind is dict else value if kind is list else _inside(value))]
    yield f"{kind.__name__} {len(inner)}"
    for each in inner:
        yield from [each] if kind in ATOMS else _parts(each, seen)


def _inside(value: Any) -> Iterator[Any]:
    """Yield what a function or an object consists of."""
    if isinstance(value, type):
        raise TypeError(f"it uses {value.__name__}, a class of this session")
    if isinstance(value, FunctionType):
        yield from (value.__code__, value.__defaults__, value.__kwdefaults__, vars(value))
        yield from (cell.cell_contents for cell in value.__closure__ or ())
        yield from ((name, value.__globals__[name]) for name in _globals(value.__code__) if name in value.__globals__)
    else:
        reduce = copyreg.dispatch_table.get(type(value))
        made = reduce(value) if reduce else value.__reduce_ex__(4)
        parts = (made,) if isinstance(made, str) else made
        yield from (list(part) if isinstance(part, Iterator) else part for part in parts)


def _globals(code: CodeType) -> list[str]:
    """Return the names of the globals that code reads, in functions within it too."""
    own = {each.argval for each in dis.get_instructions(code) if each.opname == "LOAD_GLOBAL"}
    return sorted(own.union(*(_globals(each) for each in code.co_consts if isinstance(each, CodeType))))
