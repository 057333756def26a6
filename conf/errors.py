"""The one exception for input a person must change."""


class BadInput(Exception):
    """Bad configuration, data, checkpoint or name. Its text is one sentence: the thing, the value, the remedy.

    Commands print it on one line and exit with code 2, before anything expensive has started.
    """

    def __init__(self, text: str) -> None:
        super().__init__(" ".join(text.split()))
