r"""Writes typographic characters as LaTeX: ½ as \frac{1}{2}, x² as x^{2}, π as \pi, full-width digits as plain ones."""

import re
import unicodedata

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
        **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff", ""),
        **dict.fromkeys("\u00a0\u2009\u202f\u3000", " "),
    }
)

RAISED = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱ]+")
LOWERED = re.compile("[₀₁₂₃₄₅₆₇₈₉₊₋₍₎ₙ]+")
FRACTION_BAR = "\N{FRACTION SLASH}"
GREEK = re.compile("GREEK (SMALL|CAPITAL) LETTER (FINAL )?([A-Z]+)")
OTHER_NAMES = {"lamda": "lambda"}
"""Names that Unicode and LaTeX spell differently."""


def ascii_latex(text: str) -> str:
    """Return the text with its typographic characters as LaTeX; unknown characters stay."""
    if text.isascii():
        return text
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
        name = match[3].lower()
        name = OTHER_NAMES.get(name, name)
        return rf"\{name.capitalize() if match[1] == 'CAPITAL' else name} "
    return flat if flat.isascii() else character
