"""The one exception for input a person must change."""

from conf.text import printable

MOST_CHARACTERS = 1000
"""Of a refusal: what somebody has typed or stored may be of any length, and the remedy stands at the end."""


class BadInput(Exception):
    """Bad configuration, data, checkpoint or name. Its text is one sentence: the thing, the value, the remedy.

    Commands print it on one line and exit with code 2, before anything expensive has started.
    """

    def __init__(self, text: str) -> None:
        text = printable(" ".join(text.split()))
        half = MOST_CHARACTERS // 2
        super().__init__(text if len(text) <= MOST_CHARACTERS else f"{text[:half]} … {text[-half:]}")


def in_brief(error: BaseException) -> str:
    """Return kind and text of an error on one line of at most 300 characters."""
    return printable(" ".join(f"{type(error).__name__}: {error}".split()))[:300]
