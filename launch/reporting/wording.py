"""Numbers and fractions in the form that people read. Fixed words are in labels.yaml."""

import re
from math import floor, log10
from pathlib import Path
from typing import Any

import yaml
from markupsafe import Markup, escape

from microbudget_rl.actors.evaluation.statistics import Mean
from microbudget_rl.actors.formats import counted, duration
from microbudget_rl.conf.errors import printable

WORDS: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("labels.yaml").read_text("utf-8"))

MISSING = "–"
SPACE = "\N{NO-BREAK SPACE}"

CHARACTERS = 1500
"""Most characters shown of a problem or response; a response may have ten thousand."""

SMALL = 1e-3
"""Value below which a setting is written as people type it: 2e-4."""

LIVE = re.compile(r"[\\`*_\[\]<>&|~$]|:(?=//)|(?<=\bwww)\.", re.IGNORECASE)
"""Pattern of Markdown's markup, and of the middle of an address, which is a link without markup."""


def percent(share: float | None, digits: int = 1) -> str:
    """Write a fraction in percent: 0.8203 → 82.0 %."""
    return MISSING if share is None else f"{share * 100:.{digits}f}{SPACE}%"


def points(share: float | None) -> str:
    """Write a difference of fractions in percentage points, with its sign and without a unit: 0.05 → +5.0."""
    return MISSING if share is None else decimal(share * 100, sign="+")


def span(interval: Any) -> str:
    """Write the two ends of an interval in percent: 0.76, 0.88 → 76.0 to 88.0."""
    return MISSING if interval is None else " to ".join(decimal(end * 100) for end in interval)


def level(mean: Mean | None) -> tuple[str, str]:
    """Write a mean of fractions and its interval in percent."""
    return percent(mean.value if mean else None), span(mean.interval if mean else None)


def decimal(value: float, digits: int = 1, sign: str = "") -> str:
    """Write a number with a true minus sign and a comma between thousands. digits: its decimals. sign: + for a plus."""
    return f"{round(value, digits) or 0.0:{sign},.{digits}f}".replace("-", "−")


def precise(value: float, sign: str = "") -> str:
    """Write a reward with two decimals, or as many as it takes to show two digits of a small one."""
    digits = 2 if not value else max(2, 1 - floor(log10(abs(value))))
    return decimal(value, min(digits, 9), sign)


def p_value(p: float | None) -> str:
    if p is None:
        return MISSING
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def compact(value: Any) -> str:
    """Write a setting as short as possible, with digits enough to tell 0.999 from 0.9999."""
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "on" if value else "off"
    if not isinstance(value, float):
        return str(value)
    if 0 < abs(value) < SMALL:
        mantissa, exponent = f"{value:e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:g}"


def count(number: float) -> str:
    return f"{number:,.0f}"


def time(seconds: float) -> str:
    return duration(seconds).replace(" ", SPACE)


def many(number: int, thing: str) -> str:
    """Write a number of things: 3, "seed" → 3 seeds."""
    return counted(number, thing).replace(" ", SPACE, 1)


def shorten(text: str, limit: int = CHARACTERS) -> str:
    """Keep the beginning and the end of a long text, because answers are at the end."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n… {len(text) - 2 * half:,} characters not shown …\n{text[-half:]}"


def clean(value: Any) -> Any:
    """Return text that is valid on any page, without control characters and lone surrogates."""
    return printable(value, "\n\t") if isinstance(value, str) and not isinstance(value, Markup) else value


def cell(text: str) -> str:
    """Return text that Markdown shows literally, in a table or elsewhere: no link, image, emphasis or HTML."""
    return LIVE.sub(r"\\\g<0>", clean(str(text))).replace("\n", " ")


def unbroken(text: str) -> Markup:
    """Return HTML in which small numbers, such as 2e-4, are not broken at their hyphen."""
    return Markup(re.sub(r"[\d.]+e-\d+", r"<span>\g<0></span>", str(escape(clean(text)))))
