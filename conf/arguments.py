"""Reads command lines: words, and `key=value` pairs."""

import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from microbudget_rl.conf.errors import BadInput, hint

Options = Mapping[str, Sequence[str]]
"""Name of an option → its possible values; empty if any value is allowed."""

KEY = re.compile(r"[\w.\[\]-]*=")
"""Pattern of a pair's beginning. A word may have a later equals sign, such as `runs/rate=1e-5`."""


def pairs(arguments: Sequence[str], example: str, known: Collection[str] = ()) -> dict[str, str]:
    """Return the values of a command line of pairs, by key.

    example: pairs, for messages. known: names to suggest for a word.
    Raises BadInput for anything that is not a pair, and for a key given twice.
    """
    given: dict[str, str] = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not (key and equals) or key.startswith("-"):
            raise BadInput(f"argument {argument!r}: {_spelled(argument, example, known)}")
        if key in given:
            raise BadInput(f"{argument}: {key}={given[key]} is on the same command line; keep one of them")
        given[key] = value
    return given


def words_and_options(arguments: Sequence[str], options: Options) -> tuple[list[str], dict[str, str]]:
    """Return the words of a command line, and the options given.

    A word does not start like a pair, or is the path of an existing file.
    Raises BadInput for an unknown option or value.
    """
    words = [
        argument
        for argument in arguments
        if not argument.startswith("-") and (not KEY.match(argument) or os.path.exists(argument))
    ]
    example = " or ".join(f"{name}={[*values, 'VALUE'][0]}" for name, values in [*options.items()][:2])
    given = pairs([argument for argument in arguments if argument not in words], example or "no option at all", options)
    for name, value in given.items():
        if name not in options:
            there = f"{hint(name, options)}all: {', '.join(options)}" if options else "leave it out"
            raise BadInput(f"{name}={value}: no such option; {there}")
        if not value or (options[name] and value not in options[name]):
            raise BadInput(f"{name}={value}: use {', '.join(options[name]) or 'a value'}")
    return words, given


def run_and_options(arguments: Sequence[str], options: Options) -> tuple[Path, dict[str, str]]:
    """Return the folder of a run, the one word of a command line, and the options given."""
    words, given = words_and_options(arguments, options)
    if len(words) != 1:
        raise BadInput(f"name the folder of one run, such as runs/quickstart, not {' '.join(words) or 'none'}")
    return Path(words[0]), given


def whole(text: str, most: int) -> int:
    """Return the number in a text, from 1 to `most`; 0 if there is none. (int() refuses 5,000 digits.)"""
    number = int(text) if text.isdecimal() and len(text) <= len(str(most)) else 0
    return number if number <= most else 0


def _spelled(argument: str, example: str, known: Collection[str]) -> str:
    """Say how to write an argument that is not `key=value`, or has dashes before it."""
    bare = argument.lstrip("-")
    if bare != argument and ("=" in bare or bare in known):
        return f"write {bare if '=' in bare else f'{bare}=VALUE'}"
    return f"{hint(bare, known)}write it as key=value, such as {example}"
