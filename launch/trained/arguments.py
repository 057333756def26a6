"""The arguments of commands that take the folder of a run: `COMMAND FOLDER [key=value …]`."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from conf.errors import BadInput
from conf.suggestions import hint, spelled


def split(arguments: Sequence[str], options: Mapping[str, Sequence[str]]) -> tuple[Path, dict[str, str]]:
    """Return the folder and the options given.

    options: by name the values that each may have; none if any will do.
    Raises BadInput if there is not one folder, and for an option or value that there is not.
    """
    folders = [each for each in arguments if os.path.isdir(each) or not ("=" in each or each.startswith("-"))]
    if len(folders) != 1:
        raise BadInput(f"name the folder of one run, such as runs/quickstart, not {' '.join(folders) or 'none'}")
    given: dict[str, str] = {}
    for argument in arguments:
        if argument in folders:
            continue
        if argument.startswith("-"):
            raise BadInput(f"argument {argument!r}: {spelled(argument, 'port=8000 or checkpoint=best')}")
        name, _, value = argument.partition("=")
        if name not in options:
            raise BadInput(f"{argument}: no such option; {hint(name, options)}all: {', '.join(options)}")
        if name in given:
            raise BadInput(f"{argument}: {name}={given[name]} is on the same command line; keep one of them")
        if not value or (options[name] and value not in options[name]):
            raise BadInput(f"{argument}: use {', '.join(options[name]) or 'a value'}")
        given[name] = value
    return Path(folders[0]), given


def whole(text: str, most: int) -> int:
    """Return the number that a text is, from 1 to `most`; 0 if it is none. (int() refuses 5,000 digits.)"""
    number = int(text) if text.isdecimal() and len(text) <= len(str(most)) else 0
    return number if number <= most else 0
