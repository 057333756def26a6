"""Formats numbers for people."""


def counted(number: int, noun: str, plural: str = "s") -> str:
    """Return a number of things: 3, "seed" → 3 seeds. plural: what the noun then ends with."""
    return f"{number:,} {noun}{'' if number == 1 else plural}"


def money(cost: float) -> str:
    """Return a cost in any currency, with two digits at least."""
    return f"{cost:,.2f}" if cost >= 0.1 or not cost else f"{cost:.2g}"


def duration(seconds: float) -> str:
    """Return seconds in the unit that a person would use."""
    seconds = max(seconds, 0.0)
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"
