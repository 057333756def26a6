r"""Normalizes the spelling of an answer, whatever LaTeX, Markdown or characters it uses."""

import re
import unicodedata

from rewards.verify.text.extraction import MAX_ANSWER
from rewards.verify.text.words import TEXT, VOCABULARY, read_words

FREE = "\x01"
"""Marker before a group that no command takes, whose braces are meaningless."""

START = ""
"""The token before the first one, and in place of a meaningless brace."""

DOLLAR = "\x02"
"""Placeholder for a currency sign while the dollars that delimit mathematics are removed."""

ESCAPE = re.compile(r"\x08(?=egin|inom)|\x0c(?=rac)|\t(?=ext\s*\{|imes|heta|frac)|\\\\(?=[A-Za-z{}])")
ESCAPES = {"\x08": r"\b", "\x0c": r"\f", "\t": r"\t"}
"""LaTeX by the control character that JSON reads if a backslash is missing. Matrix rows keep doubled ones."""

PLAIN = re.compile(r"-?\d+(?:\.\d+)?")
MARKDOWN = re.compile(r"\s*(\*\*|__|`|\*)(?P<inside>[^*`]+)\1\s*")

BEFORE_SET = r"(?:[,(]|\\text\{\s*,?\s*(?:where|for|with)?\s*\}|(?<=\s)(?:where|for|with)(?=\s))\s*"
FOR_ALL = (
    r",?\s*(?:\\text\{\s*,?\s*|(?<=\s))for (?:all|every|any|each)"
    r"(?: (?:real|positive|negative|non-?zero|non-?negative|natural|complex|numbers?|integers?|reals|values?|of))*"
    r"\s*\}?\s*(?:[A-Za-z](?:\s*\\in\s*\\mathbb\s*\{?[A-Z]\}?(?:\^[+*]|[_^]\{[^{}]*\})?)?(?![A-Za-z]))?"
)
MOD = r"\s*\(?\s*(?:\\[pb]?mod(?![A-Za-z])|(?:\\text\{\s*\(?\s*|(?<=[\s(]))mod(?:ulo)?(?![A-Za-z]))"

BEFORE = rf"(?:(?:(?:a )?total of|{'|'.join(VOCABULARY['before'].split())})(?![A-Za-z])[.:]?\s*)+"
NAME = r"(?:\\text\{\s*)?[A-Za-z]{4,}(?: [A-Za-z]{2,}){0,4}"
DOTTED = r"\\dot\s*(?:\{\s*(\d)\s*\}|(\d))"

LAYOUT = [
    (re.compile(r"(=[^=,;&]*?)(?:\\q?quad|\\\\(?=\s))\s*(?=[^=,;]+=)"), r"\1, "),
    (re.compile(r"^\s*\\(?:therefore|implies|iff|(?:[lL]ong)?[rR]ightarrow)(?![A-Za-z])"), ""),
    (re.compile(rf"{DOTTED}(?:(\d*){DOTTED})?"), r"\\overline{\1\2\3\4\5}"),
    (re.compile(r"\\(overline|bar)\s*(\d)"), r"\\\1{\2}"),
    (re.compile(r"(?<=\.)(?=\d+ ?(?:\\[lc]?d|\.))(\d*?)(\d{1,6}?)\2{2,} ?(?:\\[lc]?dots|\.{3})"), r"\1\\overline{\2}"),
    (re.compile(r"\^\s*(?:\{\s*\\prime\s*\}|\\prime(?![A-Za-z]))"), "'"),
    (re.compile(r"\^\s*(-?\d*\.\d+|-?\d{2,}|-\d)"), r"^{\1}"),
    (re.compile(r"\\left\s*\.|\\right\s*\."), ""),
    (re.compile(r"\\(left|right|[bB]igg?[lr]?|displaystyle|textstyle|scriptstyle|limits|nolimits)(?![A-Za-z])"), ""),
    (re.compile(r"\{\s*\\(?:rm|textrm)\s+([^{}]*)\}"), r"\\text{\1}"),
    (
        re.compile(
            r"\\(?:(?:bf|it|sf|tt|rm|sl|sc|up)(?:series|shape|family)?|normalsize|small|[lL]arge|LARGE|[hH]uge|boldmath"
            r"|noindent|h?fill?|newline|nonumber|notag|(?:math)?strut|(?:black)?square|Box|qed)(?![A-Za-z])"
            r"|\\(?:tag|label)\*?\s*\{[^{}]*\}|^(?:\s*\\\\)+|(?:\\\\\s*)+$"
        ),
        "",
    ),
    (re.compile(r"\\(?:(?:[hvm]space\*?|[hv]phantom)\s*\{[^{}]*\}|(?:[hm]skip|m?kern)\s*-?[\d.]+\s*[a-z]{2})"), " "),
    (
        re.compile(
            r":=|\\coloneqq(?![a-z])|\\triangleq(?![a-z])|\\(?:overset|stackrel)\s*\{(?:[^{}]|\{[^{}]*\})*\}\s*\{=\}"
        ),
        "=",
    ),
    (re.compile(r"\\(?:textcolor|colorbox|color)\s*(?:\[[^\]]*\]\s*)?\{[^{}]*\}"), FREE),
    (re.compile(r"(?<=\d),\\!\s*(?=\d{3})"), ","),
    (re.compile(r"\\!|\\phantom\s*(?:\{[^{}]*\}|\S)"), ""),
    (re.compile(r"(?<=\d)(?:\\,|\\thinspace\s?|\{,\})(?=\d{3}(?!\d))"), ","),
    (re.compile(r"(?<!\\)\\(?:[,;:> ]|$)|~|\\(?:thinspace|medspace|thickspace|enspace)(?![A-Za-z])|\\q?quad"), " "),
    (re.compile(r"\s+"), " "),
    (re.compile(r"(?<!\\)\\[()\[\]]|(?<!\\)\$"), ""),
    (re.compile(r"\\(?:[dtc]|nice|s|big)(frac|binom|cup|cap)(?![A-Za-z])"), r"\\\1"),
    (re.compile(r"\\(frac|binom)\s*([A-Za-z\d])"), r"\\\1{\2}"),
    (re.compile(r"\\(frac|binom)\s*(\{[^{}]*\})\s*([A-Za-z\d])"), r"\\\1\2{\3}"),
    (re.compile(r"\\(?:mathrm|text|textrm|mathit|operatorname)\s*\{\s*([ie])\s*\}"), r" \1 "),
    (re.compile(r"\\([ij])math(?![A-Za-z])"), r" \1 "),
    (
        re.compile(r"\\(?:[mh]box|text(?:rm|bf|it|sf|tt|sl|sc|up|normal)|emph|mathrm|operatorname\*?)(?=\s*\{)"),
        r"\\text",
    ),
    (
        re.compile(
            r"\\(?:math(?:bf|it|sf|tt|normal|bin|ord)|ensuremath|boldsymbol|bm|pmb|underline|fbox|boxed)(?=\s*\{)"
        ),
        FREE,
    ),
    (re.compile(r"\\text\s+\{"), r"\\text{"),
    (re.compile(r"(\\text\{[^{}^]*)\^\{?([23])\}?\s*\}"), r"\1}^\2"),
    (re.compile(r"(?<=[\d}])\s+(?:\\text\{\s*([kMm]?)\s*\}?\s*)?\\Omega(?:\s*\}|(?![A-Za-z]))"), r" \\text{\1ohm}"),
    (re.compile(r"\\&|(?<![A-Za-z])as well as(?![A-Za-z])"), " and "),
    (re.compile(r"\\log\s*_\s*(?:e(?![a-z])|\{\s*e\s*\})"), r"\\ln "),
    (re.compile(r"\\lg(?![a-z])"), r"\\log_{10} "),
    (re.compile(r"<sup>([^<>]*)</sup>"), r"^{\1}"),
    (re.compile(rf"((?:^|[,;])\s*{NAME})\s*:\s*(\}}?)\s*(?=[-+\d\\(])"), r"\1\2 = "),
    (re.compile(r"\\text\{\s*([,;])\s*\}"), r"\1 "),
    (re.compile(rf"^\s*(?:\\text\{{\s*{BEFORE}\}}|(\\text\{{)?\s*{BEFORE}(?=[^\s=}}]))", re.IGNORECASE), r"\1"),
    (re.compile(r"\\text\{[\s.:]*\}|^\s*="), " "),
    (re.compile(r"\\text\{\s*(sin|cos|tan|log|ln)\s*\}"), r"\\\1 "),
    (re.compile(r"\\text\{([^{}]*[^{}\s,]),? (and|or) ?\}"), r"\\text{\1} \2 "),
    (re.compile(rf"{BEFORE_SET}[a-z]\s*\\in\s*\\mathbb\s*\{{?Z\}}?\s*\)?\s*$"), ""),
    (re.compile(rf"{FOR_ALL}(?=\s*(?:$|,|;|\\text\{{\s*,?\s*and))"), ""),
    (re.compile(rf"{MOD}\s*\}}?\s*\{{?\s*(\d+|[a-z])(?!\w)\s*\}}?\s*\)?\s*\}}?\s*$"), r"\\mod{\1}"),
    (re.compile(r"\\equiv(?=.*\\mod\{\w+\}$)"), "="),
    (re.compile(r"\^\s*\{\s*\\circ\s*\}|\^\s*\\circ(?![A-Za-z])|\\degree(?![A-Za-z])|\\textdegree"), r"^\\circ"),
    (re.compile(r"_\s*\{\s*(\w)\s*\}"), r"_\1"),
    (re.compile(r"_\s*\{\s*(\w+)\s*\}"), r"_{\1}"),
    (re.compile(r"\\text\{\s*(\w+)\s*\}(?=_[\d{])"), r"\1"),
    (re.compile(r"\\(l|g)(?:eqslant|eqq|e)(?![A-Za-z])"), r"\\\1eq"),
    (re.compile(r"\\ne(?![A-Za-z])|(?<=\s)!=|\\not\s*="), r"\\neq"),
    (re.compile(r"\\lt(?![A-Za-z])"), "<"),
    (re.compile(r"\\gt(?![A-Za-z])"), ">"),
    (re.compile(r"<=(?!>)"), r"\\leq "),
    (re.compile(r">="), r"\\geq "),
    (re.compile(r"\\(?:varnothing|O)(?![A-Za-z])|\\\{\s*\\\}"), r"\\emptyset"),
    (re.compile(r"\\frac\s*\\pi(?![A-Za-z])\s*"), r"\\frac{\\pi}"),
    (re.compile(r"\\%"), "%"),
    (re.compile(r"^\s*\\(?:thick)?approx(?![A-Za-z])"), ""),
    (re.compile(r"√\s*(?:\(([^()]*)\)|(\w+))"), r"\\sqrt{\1\2}"),
    (re.compile(r"(?<![A-Za-z\\])sqrt\s*\(([^()]*)\)"), r"\\sqrt{\1}"),
    (re.compile(r"(?<![A-Za-z\\])(pi|theta)(?![A-Za-z])"), r"\\\1 "),
    (re.compile(r"\\text\{\s*(\\(?:pi|theta)) \s*\}"), r"\1 "),
    (re.compile(r"(?<![A-Za-z\\])(sin|cos|tan|log|ln)(?=[ (])"), r"\\\1"),
    (re.compile(r"\*\*"), "^"),
    (re.compile(r"(?<![A-Za-z\\])(?:inf(?:inity|ty)?|[Ii]nfinitely many)(?![A-Za-z])"), r"\\infty"),
    (re.compile(r"^((?:[a-z]\s*\\in)?\s*)\\(?:mathbb\s*\{?R\}?|R)$"), r"\1(-\\infty, \\infty)"),
    (re.compile(r"\\lbrace(?![A-Za-z])"), r"\\{"),
    (re.compile(r"\\rbrace(?![A-Za-z])"), r"\\}"),
    (re.compile(r"\s+"), " "),
]
"""Rewrites of spelling and spacing. Each pattern is linear on text of bounded length."""

OVERS = {r"\over": r"\frac", r"\choose": r"\binom"}
TOKEN = re.compile(r"\\[A-Za-z]+\*?|\\.|.", re.DOTALL)
FIRST_ARGUMENT = "}"
"""The token before the second of two arguments."""

TWO_ARGUMENTS = frozenset(rf"\{name}" for name in ["frac", "binom", "begin", "overset", "underset", "stackrel"])
NO_ARGUMENT = re.compile(
    r"\\(?:cdot|times|div|pm|mp|leq|geq|neq|approx|cup|cap|in|setminus|pi|infty|alpha|beta|theta|quad)|\\[^A-Za-z]"
)
"""Commands after which braces are meaningless."""

COMMANDS = r"""
× times  · cdot  ⋅ cdot  ÷ div  ± pm  ∓ mp  ∞ infty  ≤ leq  ⩽ leq  ≥ geq  ⩾ geq  ≠ neq  ≈ approx  ∪ cup  ∩ cap
∖ setminus  ∈ in  ∅ emptyset  ∠ angle  ∀ forall  ∑ sum  ⟨ langle  ⟩ rangle
"""
"""Characters, each with the LaTeX command that it becomes."""

SPECIAL = str.maketrans(
    {
        **{character: rf"\{name} " for character, name in re.findall(r"(\S) (\w+)", COMMANDS)},
        "°": r"^\circ ",
        **{character: rf"\mathbb{{{letter}}}" for character, letter in zip("ℝℤℕℚ", "RZNQ", strict=True)},
        **dict(zip("∣⁄∕∗′’。", "|//*''.", strict=True)),
        **dict.fromkeys("−–—‐‑‒", "-"),
        **dict.fromkeys("，、", ", "),
        **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff∎■□", ""),
        "℃": r"^\circ C",
        **dict.fromkeys("\u00a0\u2009\u202f\u3000", " "),
    }
)

END = r"([^()\[\],;\s][^()\[\],;]*)"
HALF_OPEN = re.compile(rf"([\[\]])\s*{END}[,;]\s*{END}([\[\]])")
"""An interval with a bracket turned around where its end is left out: ]a, b[."""

RAISED = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱ]+")
LOWERED = re.compile("[₀₁₂₃₄₅₆₇₈₉₊₋₍₎ₙ]+")
FRACTION_BAR = "\N{FRACTION SLASH}"
GREEK = re.compile("GREEK (SMALL|CAPITAL) LETTER (FINAL )?([A-Z]+)")


def plain(answer: str) -> str:
    """Return an answer in normalized spelling, without layout, dollars, surrounding white space and a full stop.

    The result is empty if the answer contains control characters, lone surrogates or ~~struck-out text~~, or is too
    long.
    """
    single = "\\" if r"\begin" not in answer else r"\\"
    answer = ESCAPE.sub(lambda match: ESCAPES.get(match[0], single), answer)
    control = any(unicodedata.category(c) in ("Cc", "Cs") and c not in "\t\n\r" for c in answer)
    if len(answer) > MAX_ANSWER or control or "~~" in answer:
        return ""
    answer = ascii_latex(answer).strip()
    if len(answer) > MAX_ANSWER:
        return ""
    if PLAIN.fullmatch(answer):
        return answer
    if match := MARKDOWN.fullmatch(answer):
        answer = match["inside"]
    answer = answer.replace(r"\$", "\\" + DOLLAR)
    for pattern, replacement in LAYOUT:
        answer = pattern.sub(replacement, answer)
    answer = answer.replace("\\" + DOLLAR, r"\$").strip()
    answer = HALF_OPEN.sub(lambda ends: "[("[ends[1] == "]"] + f"{ends[2]}, {ends[3]}" + "])"[ends[4] == "["], answer)
    answer = answer if answer.endswith("m.") else answer.rstrip(".,; ")  # a.m., p.m.
    if "{" in answer or FREE in answer or any(over in answer for over in OVERS):
        answer = _without_free_groups(answer).replace(FREE, "").strip()
    if whole := TEXT.fullmatch(answer):
        answer = whole[1].strip().rstrip(".")
    return read_words(answer)


def _without_free_groups(text: str) -> str:
    r"""Remove the braces of groups that no command takes, and write {a \over b} and {a \choose b} as commands.

    Text whose braces do not match stays as it is.
    """
    written: list[str] = []
    groups: list[tuple[int, str]] = [(-1, START)]  # where each open group starts, and the token before it
    overs: dict[int, tuple[int, str]] = {}
    previous = START
    for token in TOKEN.findall(text + "}"):
        if token == "{":
            groups.append((len(written), previous))
            previous = START
        elif token in OVERS:
            overs[len(groups)] = len(written), OVERS[token]
            previous = START
        elif token == "}":
            if not groups:
                return text
            over = overs.pop(len(groups), None)
            start, before = groups.pop()
            if over is not None:
                place, command = over
                written[start + 1 :] = [command, "{", *written[start + 1 : place], "}{", *written[place + 1 :], "}"]
            if _takes_none(before):
                token = START
                if start >= 0:
                    written[start] = " " if before.startswith("\\") else ""
            previous = FIRST_ARGUMENT if before in TWO_ARGUMENTS else START
        elif token != " ":
            previous = token
        written.append(token)
    return text if groups else "".join(written)


def _takes_none(token: str) -> bool:
    """Whether a group after this token has meaningless braces."""
    if token.startswith("\\"):
        return bool(NO_ARGUMENT.fullmatch(token))
    return token not in ("^", "_", "]", FIRST_ARGUMENT)


def ascii_latex(text: str) -> str:
    """Return the text with its typographic characters as LaTeX; unknown characters stay."""
    text = RAISED.sub(lambda run: f"^{{{_flat(run[0])}}}", text)
    text = LOWERED.sub(lambda run: f"_{{{_flat(run[0])}}}", text)
    return "".join(map(_written, text.translate(SPECIAL)))


def _flat(run: str) -> str:
    return unicodedata.normalize("NFKC", run).replace("−", "-")


def _written(character: str) -> str:
    if character.isascii():
        return character
    if unicodedata.category(character) == "Nd":
        return str(unicodedata.decimal(character))
    if unicodedata.decomposition(character).startswith("<circle>"):
        return f"({unicodedata.normalize('NFKC', character)}), "
    flat = unicodedata.normalize("NFKC", character)  # ½ becomes 1⁄2, the italic 𝑥 an x, the full-width ＋ a +
    numerator, bar, denominator = flat.partition(FRACTION_BAR)
    if bar:
        return rf"\frac{{{numerator}}}{{{denominator}}}"
    if match := GREEK.fullmatch(unicodedata.name(flat[:1], "")):
        name = match[3].lower().replace("lamda", "lambda")  # Unicode's spelling
        return rf"\{name.capitalize() if match[1] == 'CAPITAL' else name} "
    return flat if flat.isascii() else character
