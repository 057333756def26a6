"""The exception for input that a person must change, and functions that make its message safe and helpful."""

import os
import platform
import re
from collections import defaultdict
from collections.abc import Iterable
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from unicodedata import category

import yaml

MOST_CHARACTERS = 1000
"""Largest number of characters shown of one fault: its beginning, and its end with the remedy."""

MOST_FAULTS = 20

KEY = re.compile(r"(TOKEN|KEY|SECRET|PASSWORD)S?", re.IGNORECASE)
"""Pattern of the end of the name of an environment variable with a credential."""

CREDENTIALS = re.compile(r"(?<=://)\S+(?=@)|(?<=\?)[^\s'\"<>()]*=[^\s'\"<>()]*|\b(?:hf_|sk-)[\w-]{16,}")
"""Pattern of the user and password of an address, of its query, and of tokens of the hub and of OpenAI's kind."""

PERSONAL = (
    r"(?<![\w.])(?<!==)(?!127\.|0\.0\.0\.0)(?:\d{1,3}\.){3}\d{1,3}(?!\.?\w)",
    r"\b(?:[\da-f]{1,4}:){4,7}[\da-f:]+|\bfe80:[\da-f:]+",
    r"[\da-f]{8}-(?:[\da-f]{4}-){3}[\da-f]{12}|(?<=Serial Number)[ :]+\d+|\b0x[\da-f]{16}\b",
    r"/(?:home|Users)/[^/\s:'\"]+",
)
"""Patterns of addresses but the loopback's (a version follows `==`), of UUIDs and other ids of GPUs, and of homes."""

CLOSE = 0.65
"""Likeness of a near name, by difflib. At its default of 0.6 `deepspeed` is near `run.seed`."""


class BadInput(Exception):
    """Bad configuration, data, checkpoint or name. Each fault is a sentence on a line of its own: thing, value, remedy.

    Commands print it and exit with code 2, before anything expensive has started.
    """

    def __init__(self, *faults: str) -> None:
        left = len(faults) - MOST_FAULTS
        super().__init__("\n".join([*map(_short, faults[:MOST_FAULTS]), *([f"and {left} more"] if left > 0 else [])]))


class TryLater(Exception):
    """The machine fails at something that may work another time. Commands print the sentence and exit with code 1."""


def _short(text: str) -> str:
    text, half = printable(" ".join(without_credentials(text).split())), MOST_CHARACTERS // 2
    return text if len(text) <= MOST_CHARACTERS else f"{text[:half]} … {text[-half:]}"


def in_brief(error: BaseException) -> str:
    """Return the kind and text of an error on one line of at most 300 characters."""
    return printable(" ".join(without_credentials(f"{type(error).__name__}: {error}").split()))[:300]


def without_credentials(text: str) -> str:
    """Return a text without the credentials in its addresses, and without those in this process's environment."""
    for name, value in os.environ.items():
        if KEY.fullmatch(name.rpartition("_")[2]) and len(value) >= 8:  # a shorter one is a word
            text = text.replace(value, "…")
    return CREDENTIALS.sub("…", text)


def anonymous(text: str) -> str:
    """Return a text without credentials, addresses, ids of devices, and the names of home, user and host."""
    host, names = platform.node(), ("USER", "LOGNAME", "SUDO_USER")
    private = {os.path.expanduser("~"), host, host.partition(".")[0], *(os.environ.get(name, "") for name in names)}
    words = (
        rf"(?<![^\W_]){re.escape(word)}(?![^\W_])" for word in sorted(private - {"", "/", "root", "localhost"})[::-1]
    )
    return re.sub("|".join([*PERSONAL, *words]), "…", without_credentials(text), flags=re.IGNORECASE)


def printable(text: str, keep: str = "") -> str:
    """Return a text with escapes for characters that would change how others are shown, except those to keep."""
    return "".join(
        character
        if character.isprintable() or character in keep or category(character) == "Zs"
        else repr(character)[1:-1]
        for character in text
    )


@cache
def _coming_from() -> dict[str, str]:
    names: dict[str, str] = yaml.safe_load(Path(__file__).with_name("coming_from.yaml").read_text("utf-8"))
    return names


def foreign(name: str) -> str:
    """Return our name of the setting that TRL, verl or others call so, or why there is none; empty if unknown."""
    return _coming_from().get(name, _coming_from().get(name.rpartition(".")[2], ""))


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """Return up to three close names, closest first, or the one that another project calls so. Case does not count, and
    the part after the last dot may do.
    """
    known, ours = [*known], foreign(name)
    if ours in known or " " in ours:
        return [ours] if ours in known else []
    forms = defaultdict[str, list[str]](list)
    for other in known:
        for form in {other.lower().rpartition(".")[2], other.lower()}:
            forms[form].append(other)
    name = name[:100].lower()  # the time grows with the square of the length
    close = (
        match for part in (name, name.rpartition(".")[2]) for match in get_close_matches(part, forms, cutoff=CLOSE)
    )
    return [*dict.fromkeys(other for form in close for other in forms[form])][:3]


def hint(name: str, known: Iterable[str]) -> str:
    """Return the nearest names as part of a message; empty if there are none."""
    close = nearest(name, known)
    return f"nearest: {', '.join(close)}; " if close else ""
