"""Numbers and fractions in the form that people read. Fixed words are in labels.yaml."""

from pathlib import Path
from typing import Any

import yaml

from actors.formats import duration

WORDS: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("labels.yaml").read_text("utf-8"))

MISSING = "–"
SPACE = "\N{NO-BREAK SPACE}"

CHARACTERS = 1500
"""Most characters shown of a problem or response; a response may have ten thousand."""

SMALL = 1e-3
"""Value below which a setting is written as people type it: 2e-4."""


def percent(share: float | None, digits: int = 1) -> str:
    """Write a fraction in percent: 0.8203 → 82.0 %."""
    return MISSING if share is None else f"{share * 100:.{digits}f}{SPACE}%"


def points(share: float | None) -> str:
    """Write a difference of fractions in percentage points, with its sign and without a unit: 0.05 → +5.0."""
    return MISSING if share is None else signed(share * 100)


def signed(value: float, digits: int = 1) -> str:
    return f"{round(value, digits) or 0.0:+.{digits}f}".replace("-", "−")


def span(interval: Any) -> str:
    """Write the two ends of an interval in percent: 0.76, 0.88 → 76.0 to 88.0."""
    return MISSING if interval is None else " to ".join(decimal(end * 100) for end in interval)


def decimal(value: float, digits: int = 1) -> str:
    """Write a number with a true minus sign and a comma between thousands. digits: its decimals."""
    return f"{round(value, digits) or 0.0:,.{digits}f}".replace("-", "−")


def p_value(p: float | None) -> str:
    if p is None:
        return MISSING
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def compact(value: Any) -> str:
    """Write a setting or a small measure as short as possible."""
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "on" if value else "off"
    if not isinstance(value, float):
        return str(value)
    if 0 < abs(value) < SMALL:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:.3g}"


def count(number: float) -> str:
    return f"{number:,.0f}"


def time(seconds: float) -> str:
    return duration(seconds).replace(" ", SPACE)


def many(number: int, thing: str) -> str:
    """Write a number of things: 3, "seed" → 3 seeds."""
    return f"{number:,}{SPACE}{thing}{'' if number == 1 else 's'}"


def shorten(text: str, limit: int = CHARACTERS) -> str:
    """Keep the beginning and the end of a long text, because answers are at the end."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n… {len(text) - 2 * half:,} characters not shown …\n{text[-half:]}"
