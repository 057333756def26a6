r"""Extracts the answer of a response: the content of the last `\boxed{…}`, in one spelling."""

import re
import unicodedata

MAX_ANSWER = 1_000
"""Characters; a longer boxed answer is unparsable. Far above any real answer, it bounds what parsers are fed."""

BOX = "\\boxed"
END_OF_THOUGHT = "</think>"

CHARACTERS = str.maketrans(
    {
        **{chr(code): chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)},  # full-width
        **dict.fromkeys("−–—‐‑‒", "-"),
        "×": r"\times ",
        "·": r"\cdot ",
        "⋅": r"\cdot ",
        "÷": r"\div ",
        "±": r"\pm ",
        "°": r"^\circ ",
        "π": r"\pi ",
        "∞": r"\infty ",
        "≤": r"\leq ",
        "≥": r"\geq ",
        "≠": r"\neq ",
        "∪": r"\cup ",
        "∅": r"\emptyset ",
        "½": r"\frac{1}{2}",
        "⅓": r"\frac{1}{3}",
        "⅔": r"\frac{2}{3}",
        "¼": r"\frac{1}{4}",
        "¾": r"\frac{3}{4}",
        "⁰": "^{0}",
        "¹": "^{1}",
        "²": "^{2}",
        "³": "^{3}",
        "⁴": "^{4}",
        "⁵": "^{5}",
        "⁶": "^{6}",
        "₂": "_2",
        "₈": "_8",
        "⟨": r"\langle ",
        "⟩": r"\rangle ",
        "，": ", ",
        "、": ", ",
        "。": ".",
        **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff", ""),
        **dict.fromkeys("\u00a0\u2009\u202f\u3000", " "),
    }
)
"""Typographic characters and their LaTeX."""

LAYOUT = [
    (re.compile(r"\\left\s*\.|\\right\s*\."), ""),
    (re.compile(r"\\(left|right|[bB]igg?[lr]?|displaystyle|textstyle|limits|nolimits)(?![A-Za-z])"), ""),
    (re.compile(r"\\!|\\h?phantom\s*(?:\{[^{}]*\}|\S)"), ""),
    (re.compile(r"(?<=\d)(?:\\,|\\thinspace\s?|\{,\})(?=\d{3}(?!\d))"), ","),
    (re.compile(r"(?<!\\)\\[,;:> ]|~|\\(?:thinspace|medspace|thickspace|enspace|q?quad)(?![A-Za-z])"), " "),
    (re.compile(r"(?<!\\)\\[()\[\]]|(?<!\\)\$"), ""),
    (re.compile(r"\\[dtc]frac(?![A-Za-z])"), r"\\frac"),
    (
        re.compile(r"\\(?:mbox|textrm|textbf|textit|textsf|texttt|textnormal|mathrm|operatorname\*?)(?=\s*\{)"),
        r"\\text",
    ),
    (re.compile(r"\\(?:mathbf|boldsymbol|bm|mathit|mathsf)\s*\{([^{}]*)\}"), r"\1"),
    (re.compile(r"\\text\s+\{"), r"\\text{"),
    (re.compile(r"\^\s*\{\s*\\circ\s*\}|\^\s*\\circ(?![A-Za-z])|\\degree(?![A-Za-z])"), r"^\\circ"),
    (re.compile(r"_\s*\{\s*(\w+)\s*\}"), r"_\1"),
    (re.compile(r"\\text\{\s*(\w+)\s*\}(?=_\d)"), r"\1"),
    (re.compile(r"\\(le|ge|ne)(?![A-Za-z])"), r"\\\1q"),
    (re.compile(r"\\(?:varnothing|O)(?![A-Za-z])|\\\{\s*\\\}"), r"\\emptyset"),
    (re.compile(r"\\frac\s*\\pi(?![A-Za-z])\s*"), r"\\frac{\\pi}"),
    (re.compile(r"\\%"), "%"),
    (re.compile(r"^\s*\\(?:thick)?approx(?![A-Za-z])"), ""),
    (re.compile(r"√\s*(?:\(([^()]*)\)|(\w+))"), r"\\sqrt{\1\2}"),
    (re.compile(r"(?<![A-Za-z\\])sqrt\s*\(([^()]*)\)"), r"\\sqrt{\1}"),
    (re.compile(r"(?<![A-Za-z\\])(pi|theta)(?![A-Za-z])"), r"\\\1 "),
    (re.compile(r"(?<![A-Za-z\\])(sin|cos|tan|log|ln)(?=[ (])"), r"\\\1"),
    (re.compile(r"\*\*"), "^"),
    (re.compile(r"(?<![A-Za-z\\])inf(?:inity|ty)?(?![A-Za-z])"), r"\\infty"),
    (re.compile(r"\\lbrace(?![A-Za-z])"), r"\\{"),
    (re.compile(r"\\rbrace(?![A-Za-z])"), r"\\}"),
    (re.compile(r"\s+"), " "),
]
"""Different spellings of the same, and spacing. Each pattern is linear on text of bounded length."""

WHOLE_TEXT = re.compile(r"\\text\{([^{}]*)\}")


def boxed(response: str) -> str | None:
    r"""Return the content of the last `\boxed{…}`; None without one, with open braces, or over MAX_ANSWER.

    Braces escaped as in `\{1, 2\}` do not count. Linear in the length of the response.
    """
    start = response.rfind(BOX)
    if start < 0:
        return None
    start += len(BOX)
    window = response[start : start + MAX_ANSWER + 2].lstrip()
    if not window.startswith("{"):
        return None
    depth = position = 0
    while position < len(window):
        match window[position]:
            case "\\":
                position += 1
            case "{":
                depth += 1
            case "}":
                depth -= 1
                if depth == 0:
                    return window[1:position]
        position += 1
    return None


def after_thought(response: str) -> str:
    """Return what follows the last `</think>`; nothing without one."""
    return response.rpartition(END_OF_THOUGHT)[2] if END_OF_THOUGHT in response else ""


def plain(answer: str) -> str:
    """Bring an answer into one spelling: without layout, dollars, surrounding white space and a full stop.

    Empty for one that holds control characters or lone surrogates, or is too long.
    """
    if len(answer) > MAX_ANSWER or any(unicodedata.category(c) in ("Cc", "Cs") and c not in "\t\n\r" for c in answer):
        return ""
    if not answer.isascii():
        answer = "".join(_ascii_digit(c) for c in answer.translate(CHARACTERS))
    answer = answer.strip()
    if answer.isdigit():
        return answer
    answer = answer.replace(r"\$", "\\\x00")  # a currency, not a delimiter
    for pattern, replacement in LAYOUT:
        answer = pattern.sub(replacement, answer)
    answer = answer.replace("\\\x00", r"\$").strip()
    if not answer.endswith("m."):  # a.m., p.m.
        answer = answer.rstrip(".,; ")
    if whole := WHOLE_TEXT.fullmatch(answer):
        answer = whole[1].strip().rstrip(".")
    while answer.startswith("{") and _closes(answer) == len(answer) - 1:
        answer = answer[1:-1].strip()
    return answer


def _ascii_digit(character: str) -> str:
    return str(unicodedata.decimal(character)) if unicodedata.category(character) == "Nd" else character


def _closes(answer: str) -> int:
    """Return the index of the brace that closes the first one, -1 if none does."""
    depth = 0
    for position, character in enumerate(answer):
        if character in "{}" and (position == 0 or answer[position - 1] != "\\"):
            depth += 1 if character == "{" else -1
            if depth == 0:
                return position
    return -1
