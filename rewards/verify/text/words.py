r"""Reads words: numbers and scales in words, ordinals, choices such as (A), and phrases."""

import re
from pathlib import Path

import yaml

from microbudget_rl.rewards.verify.numbers import number

VOCABULARY = yaml.safe_load(Path(__file__).parents[1].joinpath("vocabulary.yaml").read_text(encoding="utf-8"))
"""Words around a number. The file explains its lists."""

UNITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
UNITS += ["thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
CARDINALS = {word: value for value, word in enumerate(UNITS)} | {word: 10 * ten for ten, word in enumerate(TENS, 2)}
CARDINALS |= {f"{tens}-{one}": CARDINALS[tens] + CARDINALS[one] for tens in TENS for one in UNITS[1:10]}
SCALES = {"hundred": 2, "thousand": 3, "lakh": 5, "million": 6, "crore": 7, "billion": 9, "trillion": 12}
SCALES |= {"quadrillion": 15, "quintillion": 18}
PARTS = {"half": 2, "halves": 2, "third": 3, "quarter": 4, "hundredth": 100, "thousandth": 1000}
ORDINALS = ["four", "fif", "six", "seven", "eigh", "nin", "ten", "eleven", "twelf"]
PARTS |= {f"{word}th": value for value, word in enumerate(ORDINALS, 4)}
PARTS |= {f"{word}s": value for word, value in PARTS.items() if word[-1] != "s" and word != "half"}

MINUS = re.compile(
    r"(?:\\text\{\s*(?:minus|negative)\s*\}\s*|(?:minus|negative)\s+)"
    rf"(?=[\d.]|\\frac|\\sqrt|(?:{'|'.join(CARDINALS)})(?![a-z]))",
    re.IGNORECASE,
)
SCALED = re.compile(rf"(?<=\d)()\s*(\\text\{{)?[\s-]*({'|'.join(SCALES)})s?(?![A-Za-z])\s*(\}})?")
PARTED = re.compile(rf"(?<![\d.,/])(\d+)\s*(\\text\{{)?[\s-]*({'|'.join(PARTS)})(?: parts?)?(?![A-Za-z])\s*(\}})?")
BASE = re.compile(
    r"(?<=[\w)])(?:_\{?\\text\{\s*(?:base )?|\s*\(?(?:\\text\{\s*)?\(?(?:in )?base[ -])(?:\}\s*)?"
    rf"({'|'.join(UNITS)}|\d+)\s*[)}}]*$"
)
ORDINAL = re.compile(r"(\d+)\s*\^?\s*\{?\s*(?:\\text\{\s*)?(st|nd|rd|th)(?![A-Za-z])\s*\}?\s*\}?")

OPTION = r"(?:\\text\{\s*)?(?:(?:[Oo]ption|[Cc]hoice)\s*)?(?:\\text\{\s*)?"
CHOICE = re.compile(rf"\(?\s*{OPTION}\(?\s*([A-Z])\s*\)?\s*\}}?\s*\)?\s*\.?")
LABEL = r"\(\s*([A-J])\s*\)|(?<![A-Za-z])([A-J])(?:\)|[.:](?=\s))"
LABELLED = re.compile(rf"{OPTION}(?:{LABEL})[\s.:]*\}}?[\s.:]*(.+)", re.DOTALL)
DENIALS, CHANGES = VOCABULARY["denials"].split(), VOCABULARY["changes"].split()
DENIED = re.compile(
    rf"(?<![A-Za-z])(?:{'|'.join({*DENIALS} - {'no', 'none', 'false', 'or', 'either'})})(?![A-Za-z])", re.IGNORECASE
)
"""Words that deny a choice; the others may be part of its value."""

AFTER_CHOICE = re.compile(r"\W*(?:text\W*)?(?:[A-J]\W*$|(?:and|or|is|are|was)(?![a-z]))|\s*[,;/&]\s*\S|\?")
"""What makes several choices, or none, of one: (C), D and (C) is wrong."""

TEXT = re.compile(r"\\text\{([^{}]*)\}")
PHRASE = re.compile(r"\(?[A-Za-z][A-Za-z']*(?:[ ,-]+[A-Za-z0-9']+)*\)?")
PRODUCT = re.compile(r"(?![A-Z][a-z]{2})[A-Za-z](?: ?[A-Za-z]){1,2}")
WORD = re.compile(r"no|odd|all|any|[^aeiou][aeiou][^aeiou]")
SYMBOLS = frozenset({"pi", "inf", "infty", "infinity"})
"""Names of values that look like words."""

NOTHING = re.compile(
    r"(?:there (?:is|are) )?no (?:real |integer )?(?:solutions?|roots?)(?: exists?)?|(?:the )?empty set", re.IGNORECASE
)
REALS = re.compile(r"(?:the set of )?(?:all )?(?:the )?real(?: number)?s|all real(?: values of)? [a-z]", re.IGNORECASE)

DAY = r"(\d{1,2})(?:st|nd|rd|th)?"
MONTH = (
    r"(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
    r"(?:uary|ruary|ch|il|e|y|ust|t|t?ember|ober)?\.?(?![A-Za-z])"
)
DATE = re.compile(
    rf"(?:([A-Z][a-z]+day),? )?(?:the )?(?:{DAY} (?:of )?{MONTH}|{MONTH} (?:the )?{DAY})"
    r"(?![\w:/])(?:,? (\d{4})(?!\w))?"
)
"""A date, with a day of the week or a year."""

MOST_WORDS = 8
"""Most words of an answer; more are an explanation."""


def read_words(text: str) -> str:
    r"""Write number words as numbers: 3 million, 3 halves, 12th, twelve, and the base in 41_{\text{five}}."""
    text = DATE.sub(r"\1 \4\3 \5\2 \6", text).strip()
    if match := MINUS.match(text):
        return f"-{read_words(text[match.end() :])}"
    words = re.sub(r"[\s-]+", "-", text.lower())
    if words in CARDINALS:
        return str(CARDINALS[words])
    count, _, part = words.rpartition("-")
    if part in PARTS and (count in CARDINALS or count == "a" or words == "half"):
        return rf"\frac{{{CARDINALS.get(count, 1)}}}{{{PARTS[part]}}}"
    if NOTHING.fullmatch(text):
        return r"\emptyset"
    if REALS.fullmatch(text):
        return r"(-\infty, \infty)"
    if (match := ORDINAL.match(text)) and match[2] == _suffix(int(match[1][-2:])):
        return f"{match[1]} {text[match.end() :]}".strip()
    text = PARTED.sub(_value, SCALED.sub(_value, text))
    return BASE.sub(lambda match: f"_{{{CARDINALS.get(match[1], match[1])}}}", text)


def _value(match: re.Match[str]) -> str:
    count, opening, word, closing = match.groups()
    rest = "" if bool(opening) == bool(closing) else f" {opening or closing}"  # \text{ million dollars} keeps its text
    return (rf"\frac{{{count}}}{{{PARTS[word]}}}" if count else rf" \times 10^{{{SCALES[word]}}}") + rest


def _suffix(number: int) -> str:
    return "th" if 10 <= number % 100 < 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")


def choice(text: str) -> str:
    """Return the letter of a choice such as (A); empty if the text is not a choice."""
    match = CHOICE.fullmatch(text)
    return match[1] if match else ""


def labelled(text: str) -> tuple[str, str]:
    r"""Return letter and value of \text{(C)} 8; the letter is empty if the text has no label, or several."""
    match = LABELLED.fullmatch(text)
    if not match or re.search(LABEL, match[3]) or AFTER_CHOICE.match(match[3]) or DENIED.search(match[3]):
        return "", text
    return match[1] or match[2], match[3]


def product(text: str) -> bool:
    """Whether letters are a product, such as xy and pqr, and no word, such as "no", "yes" and "east"."""
    return bool(PRODUCT.fullmatch(text)) and not WORD.fullmatch(text.lower().replace(" ", ""))


def phrase(text: str) -> str:
    """Return words in lower case, empty for other text; algebra would read "east" as a product of letters."""
    unwrapped = TEXT.sub(r"\1", text).strip()
    match = PHRASE.fullmatch(unwrapped)
    if not match or number(unwrapped) is not None or product(unwrapped):
        return ""
    words = re.findall(r"[a-z0-9']+", unwrapped.lower())
    if len(words) > MOST_WORDS:
        return ""
    spelt = any(len(word) > 1 and word.isalpha() for word in words)
    return " ".join(words) if spelt and SYMBOLS.isdisjoint(words) else ""
