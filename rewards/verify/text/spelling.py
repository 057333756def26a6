r"""Normalizes the spelling of an answer, whatever LaTeX, Markdown or characters it uses."""

import re
import unicodedata

from microbudget_rl.rewards.verify.text.extraction import MAX_ANSWER
from microbudget_rl.rewards.verify.text.words import TEXT, VOCABULARY, read_words

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
    r",?\s*(?:\\text\{\s*,?\s*|(?<=\s))for(?: (?:all|every|any|each|an)|(?= integers?[ }]))"
    r"(?: (?:real|positive|negative|non-?zero|non-?negative|natural|complex|numbers?|integers?|reals|values?|of))*"
    r"\s*\}?\s*(?:[A-Za-z](?:\s*\\in\s*\\mathbb\s*\{?[A-Z]\}?(?:\^[+*]|[_^]\{[^{}]*\})?)?(?![A-Za-z]))?"
)
LOGARITHM = r"\\(?:ln|log)(?:_\w|_\{\w+\})?\s*(?:\d+|[a-z]|\(\w+\)|\{\w+\})"
MOD = r"\s*\(?\s*(?:\\[pb]?mod(?![A-Za-z])|(?:\\text\{\s*\(?\s*|(?<=[\s(]))mod(?:ulo)?(?![A-Za-z]))"

INTRODUCTION = (
    r"(?:(?:(?:a )?total of|(?:in|on|at)(?= (?:the |\d|[a-z]+day))"
    rf"|{'|'.join(VOCABULARY['before'].split())})(?![A-Za-z])[.,:]?\s*)+"
)
NAME = r"(?:\\text\{\s*)?(?:[Tt]he )?[A-Za-z]{3,}(?: [A-Za-z]{2,}){0,4}"
DOTTED = r"\\dot\s*(?:\{\s*(\d)\s*\}|(\d))"

MARKUP = (
    r"\\(?:left|right)\s*\.|\\(?:left|right|[bB]igg?[lr]?|(?:display|text|script)style|(?:no)?limits|normalsize|small"
    r"|[lL]arge|LARGE|[hH]uge|tiny|boldmath|(?:bf|it|sf|tt|rm|sl|sc|up)(?:series|shape|family)?|noindent|h?fill?"
    r"|newline|nonumber|notag|(?:math)?strut|(?:black)?square|Box|qed|checkmark)(?![A-Za-z])"
    r"|\\(?:tag|label)\*?\s*\{[^{}]*\}|^(?:\s*\\\\)+|(?:\\\\\s*)+$"
)
LAYOUT = [
    (re.compile(pattern), replacement)
    for pattern, replacement in [
        (rf"^([^${DOLLAR}]*\d ?|(?=\$[\d.,]+$))\$([^$]*)$", rf"\1\\{DOLLAR}\2"),  # alone, it is a currency
        (r"&\s*=", "="),
        (r"(?<![\w-])(\d{4})-([01]\d)-([0-3]\d)(?![\w-]|\s*=)", r"date \1 \2 \3"),
        (r"^\s*\\begin\{(cases|aligned)\}(.*)\\end\{\1\}\s*$", r"\2"),
        (r"(=[^=,;&]*?)(?:\\q?quad|\\\\(?=\s|[a-z]\s*=))\s*(?=[^=,;]+=)", r"\1, "),
        (rf"{DOTTED}(?:(\d*){DOTTED})?", r"\\overline{\1\2\3\4\5}"),
        (r"\\(overline|bar)\s*(\d)", r"\\\1{\2}"),
        (
            r"(?<=\.)(?=\d+ ?(?:\\[lc]?d|\.))(\d*?)(?:(\d\d??)\2{2,}|(\d{3,6}?)\3+) ?(?:\\[lc]?dots|\.{3})",
            r"\1\\overline{\2\3}",
        ),
        (r"\^\s*(?:\{\s*\\prime\s*\}|\\prime(?![A-Za-z]))", "'"),
        (r"\^\s*(-?\d*\.\d+|-?\d{2,}|-\d)", r"^{\1}"),
        (MARKUP, ""),
        (r"\\(?:(?:[hvm]space\*?|[hv]phantom)\s*\{[^{}]*\}|(?:[hm]skip|m?kern)\s*-?[\d.]+\s*[a-z]{2})", " "),
        (r":=|\\(?:coloneqq|triangleq)(?![a-z])|\\(?:overset|stackrel)\s*\{[^=]*\}\s*\{=\}", "="),
        (r"\\(?:textcolor|colorbox|color)\s*(?:\[[^\]]*\]\s*)?\{[^{}]*\}", FREE),
        (r"(?<=\d),\\!\s*(?=\d{3})", ","),
        (r"\\!|\\phantom\s*(?:\{[^{}]*\}|\S)", ""),
        (r"(?<=\d)(?:\\,|\\thinspace\s?|\{,\}| )(?=\d{3}(?![\d/]))", ","),
        (r"(?<!\\)\\(?:[,;:> ]|$)|~|\\(?:thinspace|medspace|thickspace|enspace)(?![A-Za-z])|\\q?quad", " "),
        (r"(?<!\\)\\[()\[\]]|(?<!\\)\$", ""),
        (r"\\(?:[dtc]|nice|s|big)(frac|binom|cup|cap)(?![A-Za-z])", r"\\\1"),
        (r"\\(frac|binom)\s*([A-Za-z\d])", r"\\\1{\2}"),
        (r"\\(frac|binom)\s*(\{[^{}]*\})\s*([A-Za-z\d])", r"\\\1\2{\3}"),
        (r"\\(?:(?:mathrm|text|textrm|mathit|operatorname)\s*\{\s*([ie])\s*\}|([ij])math(?![A-Za-z]))", r" \1\2 "),
        (r"\\(?:[mh]box|text[a-z]*|emph|mathrm|operatorname\*?)\s*\{", r"\\text{"),
        (r"\\(?:math(?:bf|it|sf|tt|normal)|ensuremath|boldsymbol|bm|pmb|underline|fbox|boxed)(?=\s*\{)", FREE),
        (r"(\\text\{[^{}^]*)\^\{?(-?[1-3])\}?\s*\}", r"\1}^{\2}"),
        (r"\\frac\s*\{\s*\\text\{([^{}]*)\}\s*\}\s*\{\s*\\text\{([^{}]*)\}\s*\}", r"\\text{\1/\2}"),
        (r"(?:\\text\{([^{}]*)\}\s*)?/\s*\\text\{", r"\\text{\1/"),
        (r"\\pounds(?![a-z])", "£"),
        (r"\\text\{\s*(\\text\{[^{}]*\})\s*\}", r"\1"),
        (r"(\\end\s*\{\w+\})'", r"\1^T"),
        (r"(?<![A-Za-z\\_])([A-Z]'?)\s*(?=\([^()]*,[^()]*\)\s*(?:$|[,;]|and|\\text))", r"\1="),
        (r"([(\[][^()\[\];,]*);([^()\[\];,]*[)\]])", r"\1, \2"),
        (r"(?<![A-Za-z])(?:DNE|doesn't exist)(?![A-Za-z])", "does not exist"),
        (r"\\&|\\land(?![a-z])|(?<![A-Za-z])as well as(?![A-Za-z])", " and "),
        (r"<sup>([^<>]*)</sup>", r"^{\1}"),
        (r"\\text\{\s*([,;])\s*\}", r"\1 "),
        (rf"(?i)^\s*(?:\\text\{{\s*{INTRODUCTION}\}}|(\\text\{{)?\s*{INTRODUCTION}(?=[^\s=}}]))", r"\1"),
        (rf"((?:^|[,;])\s*{NAME})(?:\s*:| (?:is|are|equals)(?![a-z]))\s*(\}}?)\s*(?=[-+\d\\(])", r"\1\2 = "),
        (r"\\text\{[\s.:]*\}|^\s*=|\}\s*\\cdot\s*\\text\{", " "),
        (r"(?<=[\d}])\s+(?:\\text\{\s*)?([kMm]?)\s*\}?\s*\\Omega(?:\s*\}|(?![A-Za-z]))", r" \\text{\1ohm}"),
        (r"\\text\{\s*(sin|cos|tan|log|ln)\s*\}|(?<![A-Za-z\\])(sin|cos|tan|log|ln)(?=[ (_])", r"\\\1\2 "),
        (rf"({LOGARITHM})\s*/\s*({LOGARITHM})(?!\s*[\w^!.{{(\\])", r"\\frac{\1}{\2}"),
        (r"\\log\s*_\s*(?:e(?![a-z])|\{\s*e\s*\})", r"\\ln "),
        (r"\\lg(?![a-z])", r"\\log_{10} "),
        (r"\\text\{([^{}]*[^{}\s,]),? (and|or) ?\}", r"\\text{\1} \2 "),
        (
            rf"^((?:(?!\\[lg][te]|[<>]).)*?){BEFORE_SET}[a-z]\s*"
            r"(?:\\in\s*\\mathbb\s*\{?Z\}?|(?:\\text\{\s*)?is an(?:y)? integer\s*\}?)\s*\)?\s*$",
            r"\1",
        ),
        (r"^\\\{\s*([^{}]*\\pi[^{}]*?)\s*(?::|\||\\mid)\s*[a-z]\s*\\in\s*\\mathbb\s*\{?Z\}?\s*\\\}$", r"\1"),
        (rf"{FOR_ALL}(?=\s*(?:$|,|;|\\text\{{\s*,?\s*and))", ""),
        (rf"{MOD}\s*\}}?\s*\{{?\s*(\d+|[a-z])(?!\w)\s*\}}?\s*\)?\s*\}}?\s*$", r"\\mod{\1}"),
        (r"\\equiv(?=.*\\mod\{\w+\}$)", "="),
        (r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![a-z]))", r"^\\circ"),
        (r"\\(?:text)?degree(?![a-z])|(?<=\d )degrees?(?= [CF]$)", r"^\\circ"),
        (r"_\s*\{\s*(\w)\s*\}", r"_\1"),
        (r"\\text\{\s*(\w+)\s*\}(?=_[\d{])", r"\1"),
        (r"\\(l|g)(?:eqslant|eqq|e)(?![A-Za-z])", r"\\\1eq"),
        (r"\\ne(?![A-Za-z])|(?<=\s)!=|\\not\s*=", r"\\neq"),
        (r"\\lt(?![A-Za-z])", "<"),
        (r"\\gt(?![A-Za-z])", ">"),
        (r"<=(?!>)", r"\\leq "),
        (r">=", r"\\geq "),
        (r"\\(?:varnothing|O)(?![A-Za-z])|\\\{\s*\\\}", r"\\emptyset"),
        (r"\\frac\s*\\pi(?![A-Za-z])\s*", r"\\frac{\\pi}"),
        (r"\\%", "%"),
        (r"^\s*\\(?:(?:thick)?approx|therefore|implies|iff|(?:[lL]ong)?[rR]ightarrow)(?![A-Za-z])", ""),
        (r"(?:√|(?<![A-Za-z\\])sqrt(?=\s*\())\s*(?:\(([^()]*)\)|(\w+))", r"\\sqrt{\1\2}"),
        (r"\\text\{\s*(pi|theta)\s*\}|(?<![A-Za-z\\])(pi|theta)(?![A-Za-z])", r"\\\1\2 "),
        (r"\*\*", "^"),
        (r"(?<![A-Za-z\\])(?:inf(?:inity|ty)?|[Ii]nfinitely many)(?![A-Za-z])", r"\\infty"),
        (r"^([a-z])\s*\\in\s*\\(?:mathbb\s*\{?R\}?|R)\s*(?:,|and|\\text\{\s*and\s*\})\s*(?=\1\b)", ""),
        (r"(\\mathbb\s*\{?[A-Z]\}?)\s*(?:-|\\backslash)\s*(?=\\\{)", r"\1 \\setminus "),
        (r"^((?:[a-z]\s*\\in)?\s*)\\(?:mathbb\s*\{?R\}?|R)$", r"\1(-\\infty, \\infty)"),
        (r"^((?:[a-z]\s*\\in)?\s*)\\mathbb\s*\{?R\}?\s*[_^]\s*\{?\+\}?$", r"\1(0, \\infty)"),
        (r"\\lbrace(?![A-Za-z])", r"\\{"),
        (r"\\rbrace(?![A-Za-z])", r"\\}"),
        (r"\s+", " "),
    ]
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
        **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff∎■□✓", ""),
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

    The result is empty if the answer contains control characters, lone surrogates or ~~, or is too long.
    """
    single = "\\" if r"\begin" not in answer else r"\\"
    answer = ESCAPE.sub(lambda match: ESCAPES.get(match[0], single), answer)
    if len(answer) > MAX_ANSWER or any(unicodedata.category(c) in ("Cc", "Cs") and c not in "\t\n\r" for c in answer):
        return ""
    answer = ascii_latex(answer).strip()
    if len(answer) > MAX_ANSWER or "~~" in answer:
        return ""
    if PLAIN.fullmatch(answer):
        return answer
    if match := MARKDOWN.fullmatch(answer):
        answer = match["inside"]
    answer = answer.replace(r"\$", "\\" + DOLLAR)
    for pattern, replacement in LAYOUT:
        if pattern.search(answer):  # a replacement in vain takes four times as long
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
            start, token_before = groups.pop()
            if over is not None:
                place, command = over
                written[start + 1 :] = [command, "{", *written[start + 1 : place], "}{", *written[place + 1 :], "}"]
            if _takes_none(token_before):
                token = START
                if start >= 0:
                    written[start] = " " if token_before.startswith("\\") else ""
            previous = FIRST_ARGUMENT if token_before in TWO_ARGUMENTS else START
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
