"""Text from outside, made fit to be shown."""

from unicodedata import category


def printable(text: str, keep: str = "") -> str:
    """Return a text with escapes for what moves the cursor, turns the direction of writing or is half a character.

    keep: characters that stay, such as the end of a line.
    """
    return "".join(
        character
        if character.isprintable() or character in keep or category(character) == "Zs"
        else repr(character)[1:-1]
        for character in text
    )
