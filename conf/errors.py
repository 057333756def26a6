"""The one exception for input a person must change."""

from conf.text import printable

MOST_CHARACTERS = 1000
"""Of a refusal: what somebody has typed or stored may be of any length, and the remedy stands at the end."""


MOST_FAULTS = 20


class BadInput(Exception):
    """Bad configuration, data, checkpoint or name. Its text is a sentence: the thing, the value, the remedy; of several
    faults, one on a line each.

    Commands print it and exit with code 2, before anything expensive has started.
    """

    def __init__(self, *faults: str) -> None:
        left = len(faults) - MOST_FAULTS
        super().__init__("\n".join([*map(_short, faults[:MOST_FAULTS]), *([f"and {left} more"] if left > 0 else [])]))


def _short(text: str) -> str:
    text, half = printable(" ".join(text.split())), MOST_CHARACTERS // 2
    return text if len(text) <= MOST_CHARACTERS else f"{text[:half]} … {text[-half:]}"


def in_brief(error: BaseException) -> str:
    """Return kind and text of an error on one line of at most 300 characters."""
    return printable(" ".join(f"{type(error).__name__}: {error}".split()))[:300]
