r"""Reads words: numbers and scales in words, ordinals, choices such as (A), and phrases."""

import re

from rewards.verify.numbers import number

NUMERALS = """
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen
nineteen
"""
UNITS = NUMERALS.split()
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
CARDINALS = {word: value for value, word in enumerate(UNITS)} | {word: 10 * ten for ten, word in enumerate(TENS, 2)}
CARDINALS |= {f"{tens}-{one}": CARDINALS[tens] + CARDINALS[one] for tens in TENS for one in UNITS[1:10]}
SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
PARTS = {"half": 2, "halves": 2, "third": 3, "thirds": 3, "fourths": 4, "fifths": 5, "sixths": 6, "eighths": 8}

SCALED = re.compile(rf"(?<=\d)\s*(\\text\{{)?[\s-]*({'|'.join(SCALES)})(?![A-Za-z])\s*(\}})?")
PARTED = re.compile(rf"(?<![\d.,])(\d+)\s*(?:\\text\{{)?[\s-]*({'|'.join(PARTS)})(?![A-Za-z])\s*\}}?")
BASE = re.compile(rf"(?<=\w)_\{{?\\text\{{\s*({'|'.join(UNITS)})\s*\}}\}}?")
ORDINAL = re.compile(r"(\d+)\s*\^?\s*\{?\s*(?:\\text\{\s*)?(st|nd|rd|th)(?![A-Za-z])\s*\}?\s*\}?")

OPTION = r"(?:\\text\{\s*)?(?:(?:[Oo]ption|[Cc]hoice)\s*)?(?:\\text\{\s*)?"
CHOICE = re.compile(rf"\(?\s*{OPTION}\(?\s*([A-Z])\s*\)?\s*\}}?\s*\)?\s*\.?")
LABEL = r"\(\s*([A-J])\s*\)|(?<![A-Za-z])([A-J])(?:\)|[.:](?=\s))"
LABELLED = re.compile(rf"{OPTION}(?:{LABEL})[\s.:]*\}}?[\s.:]*(.+)", re.DOTALL)

TEXT = re.compile(r"\\text\{([^{}]*)\}")
PHRASE = re.compile(r"\(?[A-Za-z][A-Za-z']*(?:[ ,-]+[A-Za-z0-9']+)*\)?")
SYMBOLS = frozenset({"pi", "inf", "infty", "infinity"})
"""Names of values that look like words."""

NOTHING = re.compile(
    r"(?:there (?:is|are) )?no (?:real |integer )?(?:solutions?|roots?)(?: exists?)?|(?:the )?empty set", re.IGNORECASE
)
REALS = re.compile(r"(?:the set of )?(?:all )?(?:the )?real(?: number)?s|all real(?: values of)? [a-z]", re.IGNORECASE)

MOST_WORDS = 8
"""Most words of an answer; more are an explanation."""


def read_words(text: str) -> str:
    r"""Write number words as numbers: 3 million, 3 halves, 12th, twelve, and the base in 41_{\text{five}}."""
    cardinal = CARDINALS.get(re.sub(r"[\s-]+", "-", text.lower()))
    if cardinal is not None:
        return str(cardinal)
    if NOTHING.fullmatch(text):
        return r"\emptyset"
    if REALS.fullmatch(text):
        return r"(-\infty, \infty)"
    if (match := ORDINAL.match(text)) and match[2] == _suffix(int(match[1][-2:])):
        return f"{match[1]} {text[match.end() :]}".strip()
    text = SCALED.sub(_scaled, text)
    text = PARTED.sub(lambda match: rf"\frac{{{match[1]}}}{{{PARTS[match[2]]}}}", text)
    return BASE.sub(lambda match: f"_{{{CARDINALS[match[1]]}}}", text)


def _scaled(match: re.Match[str]) -> str:
    opening, scale, closing = match.groups()
    rest = "" if bool(opening) == bool(closing) else opening or closing  # \text{ million dollars} keeps its text
    return rf" \times 10^{{{SCALES[scale]}}}{rest}"


def _suffix(number: int) -> str:
    return "th" if 10 <= number % 100 < 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")


def choice(text: str) -> str:
    """Return the letter of a choice such as (A); empty if the text is not a choice."""
    match = CHOICE.fullmatch(text)
    return match[1] if match else ""


def labelled(text: str) -> tuple[str, str]:
    r"""Return letter and value of \text{(C)} 8; the letter is empty if the text has no label, or several."""
    match = LABELLED.fullmatch(text)
    if not match or re.search(LABEL, match[3]):
        return "", text
    return match[1] or match[2], match[3]


def phrase(text: str) -> str:
    """Return words in lower case, empty for other text; algebra would read "east" as a product of letters."""
    unwrapped = TEXT.sub(r"\1", text).strip()
    match = PHRASE.fullmatch(unwrapped)
    if not match or number(unwrapped) is not None:
        return ""
    words = re.findall(r"[a-z0-9']+", unwrapped.lower())
    if len(words) > MOST_WORDS:
        return ""
    spelt = any(len(word) > 1 and word.isalpha() for word in words)
    return " ".join(words) if spelt and SYMBOLS.isdisjoint(words) else ""
