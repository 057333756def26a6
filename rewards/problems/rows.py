"""Turns the rows of a source into distinct problems with a gold answer."""

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, time
from decimal import Decimal
from hashlib import blake2b
from typing import Any, NamedTuple

from microbudget_rl.actors.messages import FilteredRow, Problem, Status
from microbudget_rl.actors.models.prompts import Message
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.schema import DataConfig
from microbudget_rl.rewards.problems import sources
from microbudget_rl.rewards.verify.comparison import decide_by_text
from microbudget_rl.rewards.verify.text.extraction import BOX, boxed
from microbudget_rl.rewards.verify.text.spelling import plain

PROBLEM_FIELDS = ("problem", "question", "prompt")
ANSWER_FIELDS = ("answer", "solution", "final_answer")

FINAL = "####"
"""Marker before the answer in a worked solution of GSM8K."""

LAYOUT = re.compile(r"\\(?:left|right|displaystyle|[,;:! ])(?![A-Za-z])|\$|\\[\[\]()]|~")

FLOAT = re.compile(r"(?i)[+-]?(nan|inf|(\d+(\.\d*)?|\.\d+)e[+-]?\d+)")

WHOLE = re.compile(r"(?s)(.*)")

SHOWN_CHARACTERS = 200
"""Characters of a filtered row that its listing keeps."""

EMPTY = "empty problem or answer"
NO_TEXT = "problem or answer is neither text nor a number"
NOT_FINITE = "reference answer is NaN or infinite"
NO_MATCH = "no match for data.problem_pattern"
SHOWN = "one of data.few_shot"
DUPLICATE = "duplicate"
CONFLICT = "duplicate with another reference answer"


class RawProblem(NamedTuple):
    """A problem and its gold answer.

    turns: the conversation that ends with it, if the source has one
    grader: see `actors.messages.Problem`
    fields: the whole row
    source: see `actors.messages.Problem`
    """

    text: str
    gold: str
    turns: tuple[Message, ...] = ()
    grader: str = ""
    fields: dict[str, Any] = {}  # noqa: RUF012 — never changed
    source: str = ""

    @property
    def texts(self) -> tuple[str, ...]:
        """The parts of the prompt that come from the source."""
        return (self.text, *(part for turn in self.turns for part in turn.values()))

    @property
    def id(self) -> str:
        """Hash of the text, so that it stays when a source grows or is reordered."""
        return blake2b(self.text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


AnyProblem = Problem | RawProblem


def normal(text: str) -> str:
    """Return a problem without case, white space and LaTeX layout, so that copies become equal."""
    text = LAYOUT.sub(" ", text.casefold()).replace("dfrac", "frac").replace("tfrac", "frac")
    return re.sub(r"\s+", "", text)


def filtered_row(key: str, reason: str, one: AnyProblem) -> FilteredRow:
    """Return the record of a filtered row. key: the setting that names its source."""
    source = f"mixture.{one.source}" if one.source else key.rpartition(".")[2]
    return FilteredRow(source, reason, one.text[:SHOWN_CHARACTERS], one.gold[:SHOWN_CHARACTERS])


def distinct(problems: Iterable[RawProblem], key: str, filtered: list[FilteredRow]) -> list[RawProblem]:
    """Return distinct problems, ordered by id: the first of several copies if their gold answers agree, else none."""
    groups: dict[str, list[RawProblem]] = {}
    for one in problems:
        groups.setdefault(normal(one.text), []).append(one)
    raw: dict[str, RawProblem] = {}
    for first, *others in groups.values():
        agree = all(first.gold == other.gold or _same(first.gold, other.gold) for other in others)
        if agree:
            raw[first.id] = first
        filtered += [filtered_row(key, DUPLICATE if agree else CONFLICT, other) for other in others]
        if not agree:
            filtered.append(filtered_row(key, CONFLICT, first))
    return [one for _, one in sorted(raw.items())]


def raw_problems(
    rows: list[sources.Row], key: str, data: DataConfig, filtered: list[FilteredRow], source: str = ""
) -> Iterator[RawProblem]:
    """Yield the problems in the rows of a source. key: the setting that names it. source: its name in a mixture."""
    columns = [*rows[0].fields]
    section = sources.section_of(key)
    problem_field = choose_field(key, f"{section}.problem_field", data.problem_field, PROBLEM_FIELDS, columns)
    answer_field = choose_field(key, f"{section}.answer_field", data.answer_field, ANSWER_FIELDS, columns)
    pattern = re.compile(data.problem_pattern) if data.problem_pattern else WHOLE
    shown = {example.problem for example in data.few_shot}
    for fields, grader in rows:
        problem, answer = fields.get(problem_field), fields.get(answer_field)
        turns = as_turns(problem)
        text = turns[-1]["content"].strip() if turns else as_text(problem)
        gold = as_text(answer) if grader else gold_of(answer)
        one = RawProblem(text, gold, turns if len(turns) > 1 else (), grader, fields, source)
        match = pattern.search(text)
        part = one._replace(text=match[1].strip() if match and match[1] else "")
        reason = ""
        if not grader and not_finite(answer):
            reason = NOT_FINITE
        elif not text or not (gold or grader):
            blank = all(
                isinstance(cell, str | float | None) for cell, read in ((problem, text), (answer, gold)) if not read
            )
            reason = EMPTY if blank else NO_TEXT
        elif not part.text:
            reason = NO_MATCH
        elif part.text in shown:
            reason = SHOWN
        if reason:
            filtered.append(filtered_row(key, reason, one))
        else:
            yield part


def choose_field(key: str, setting: str, chosen: str, guesses: Sequence[str], columns: Sequence[str]) -> str:
    """Return the chosen column, or else the first guess that exists, in any case. Raises BadInput if there is none."""
    names = [chosen] if chosen else guesses
    for name in names:
        for column in sorted(columns, key=str.islower, reverse=True):
            if column == name or (not chosen and column.lower() == name):
                return column
    raise BadInput(
        f"{setting}: {key} has no column {' or '.join(map(repr, names))}: "
        f"set it to one of its columns ({', '.join(columns)})"
    )


def solution_field(key: str, chosen: str, rows: Sequence[sources.Row]) -> str:
    """Return the column of the solutions: the chosen one, `solution`, or an answer that is a worked one."""
    first = rows[0].fields
    worked = [name for name in ANSWER_FIELDS if FINAL in as_text(first.get(name))]
    return choose_field(key, "warm_start.solution_field", chosen, ["solution", *worked], [*first])


def as_text(value: object) -> str:
    """Return a field as text: strings, finite numbers, dates and lists of them, none empty; empty for anything else."""
    if isinstance(value, list):
        texts = [*map(as_text, value)]
        return ", ".join(texts) if all(texts) else ""
    if isinstance(value, float) and not math.isfinite(value):
        return ""
    if isinstance(value, Decimal):
        return f"{value:f}"
    if not isinstance(value, str | int | float | date | time) or isinstance(value, bool):
        return ""
    return str(value).strip().encode("utf-8", "replace").decode()  # lone surrogates are no characters


def not_finite(value: object) -> bool:
    """Whether a value is, spells or lists an infinite number or NaN. Long integers are finite."""
    if isinstance(value, list):
        return any(map(not_finite, value))
    text = str(value) if isinstance(value, float) else as_text(value)
    return FLOAT.fullmatch(text) is not None and not math.isfinite(float(text))


def as_turns(value: object) -> tuple[Message, ...]:
    """Return a prompt that is a conversation ending with the user; empty for any other value."""
    if not isinstance(value, list) or not value or not all(isinstance(turn, dict) for turn in value):
        return ()
    turns = tuple({"role": as_text(turn.get("role")), "content": as_text(turn.get("content"))} for turn in value)
    return turns if turns[-1]["role"] == "user" and all(turn["role"] for turn in turns) else ()


def gold_of(value: object) -> str:
    r"""Return the gold answer. In a worked solution that is what follows the last `####`, if it is one line, or what is
    in the last `\boxed{}`.
    """
    text = as_text(value)
    _, mark, last = text.rpartition(FINAL)
    if mark and "\n" not in (last := last.strip()):  # else it is a heading in Markdown
        return last
    return (boxed(text) or "") if BOX in text else text


def _same(one: str, other: str) -> bool:
    return decide_by_text(plain(one), plain(other)) is Status.CORRECT
