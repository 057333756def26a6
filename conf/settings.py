"""A setting is a field of a frozen pydantic dataclass that carries everything known about it.

    max_staleness: int = setting(1, "our choice: the smallest with which generation and learning overlap", ge=0)
    '''The string below the field says what the setting means.'''

`conf/schema/` declares all settings this way. Other files do not list the settings with a property by name, but call
`conf.schema.marked`.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError, ValidationInfo
from pydantic_core import ErrorDetails, PydanticCustomError

from microbudget_rl.conf.errors import BadInput, foreign, nearest
from microbudget_rl.conf.parsing import flatten

DECLARED = ConfigDict(extra="forbid", use_attribute_docstrings=True, coerce_numbers_to_str=True)
"""Pydantic's options for a section. A number is accepted as text, as in run.name=7, but no text as a number."""

MOST = 10**9
"""Largest value of a number without a bound of its own. It keeps the product of two settings a usable size."""

WORDS: dict[Any, str] = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}

SECTION = "its section's"
"""Source of a default whose reason the docstring of its section gives."""

RULES = "rules"
"""Validation context in which rules are checked, and pydantic's type of the error for a broken rule."""

AFFECTS = {
    "held_out": "which problems are held out",
    "split": "which problems are held out, if they come from the training problems' source",
    "training": "which problems are trained on",
    "prompt": "the text in front of every response",
    "response": "how a response ends",
    "verdict": "how a response is graded",
    "rollout": "how responses are sampled for training",
    "evaluation": "how responses are sampled for an evaluation",
    "reward": "the reward of a graded response",
    "learning": "what is learned from rewards",
    "result": "which version is the result, and what is reported of it",
    "repetition": "only chance: what differs between two runs of one experiment",
    "operation": "nothing of these: where, how fast and how visibly a run proceeds",
}
"""What a setting may affect. Questions such as "may these two runs be compared" are queries over it."""

Place = tuple[str | int, ...]
"""Path to a value in nested mappings: keys, and positions in lists."""

Section = TypeVar("Section")


@dataclass(frozen=True)
class Rule:
    """A condition on a value. Null passes every rule.

    allows: whether a value is accepted.
    remedy: what to do instead, as an imperative.
    """

    allows: Callable[[Any], bool]
    remedy: str

    def check(self, value: Any, info: ValidationInfo) -> Any:
        """Return the value. Raises pydantic's error if rules are checked and this one does not allow it."""
        if value is not None and info.context == RULES and not self.allows(value):
            raise PydanticCustomError(RULES, "{remedy}", {"remedy": self.remedy})
        return value


@dataclass(frozen=True)
class Setting:
    """One setting and its properties.

    path: its dotted key, as on the command line.
    kind: its type.
    section: the dataclass that declares it.
    meaning: the string below its field, on one line.
    source: the reason of the default.
    rule: the condition on its values.
    follows: key of another setting. A layer that gives that one but not this one resets this one to its default.
    resumable: a run may be resumed with another value, as by default if that affects the operation alone.
    private: it concerns the run's owner alone, and is shown only in the run's folder.
    affects: what another value changes, some of the words of AFFECTS.
    local_path: it may be a path on this machine.
    checkpointed: its name in a learner's checkpoint, which only runs with the same value can load; empty if not stored.
    not_for_sweeps, not_for_runs: the remedy for giving it to a sweep, or to a run; empty if that accepts it.
    """

    path: str
    kind: Any
    section: type
    meaning: str
    source: str = ""
    affects: str = ""
    rule: Rule | None = None
    follows: str = ""
    resumable: bool = False
    private: bool = False
    local_path: bool = False
    checkpointed: str = ""
    not_for_sweeps: str = ""
    not_for_runs: str = ""


def setting(
    default: Any,
    source: str,
    *,
    ge: float | None = None,
    gt: float | None = None,
    le: float = MOST,
    choices: Sequence[str] = (),
    rule: Rule | None = None,
    **known: Any,
) -> Any:
    """Declare a field of a section.

    ge, gt, le: bounds of a number, which must be finite. choices: all allowed values. rule: any other condition.
    source and known: see `Setting`.
    """
    if choices:
        rule = Rule(lambda value: value in choices, f"use one of {', '.join(choices)}")
    elif gt is not None:
        rule = Rule(lambda value: gt < value <= le, f"use a number above {gt}, up to {le:,}")
    elif ge is not None:
        bounds = f"{ge} or more, up to {le:,}" if le == MOST else f"a value from {ge} to {le:,}"
        rule = Rule(lambda value: ge <= value <= le, f"use {bounds}")
    field: Any = Field(
        default_factory=lambda: copy.copy(default),
        strict=not isinstance(default, str),
        json_schema_extra={"source": source, "rule": rule, **known},  # type: ignore[dict-item]  # no JSON, nor need it be
    )
    if rule:
        field.metadata.append(AfterValidator(rule.check))
    return field


def section(kind: type, **known: Any) -> Any:
    """Declare a field that is a section of settings. known: properties that all of them share, see `Setting`."""
    return Field(default_factory=kind, json_schema_extra=known)


def settings(kind: Any, prefix: str = "", **known: Any) -> Iterator[Setting]:
    """Yield all settings of a section and of those within it, in order."""
    kinds = get_type_hints(kind)
    for name, field in kind.__pydantic_fields__.items():
        path, inner, facts = prefix + name, kinds[name], {**known, **(field.json_schema_extra or {})}
        if is_dataclass(inner):
            yield from settings(inner, f"{path}.", **facts)
        else:
            facts.setdefault("resumable", facts.get("affects") == "operation")
            yield Setting(path, inner, kind, _meaning(kind, name), **facts)


def _meaning(kind: type, name: str) -> str:
    """Return the string below a field, on one line. Pydantic keeps it only on the class that declares the field."""
    declared = (getattr(base, "__pydantic_fields__", {}).get(name) for base in kind.__mro__)
    return next((" ".join(field.description.split()) for field in declared if field and field.description), "")


def changed(section: Section, change: Mapping[str, Any]) -> Section:
    """Return a copy of a section, or of the whole configuration, with other values, by dotted key."""
    values: dict[str, Any] = {}
    for key, value in change.items():
        name, _, rest = key.partition(".")
        values[name] = changed(values.get(name, getattr(section, name)), {rest: value}) if rest else value
    return replace(section, **values) if values else section  # type: ignore[type-var]  # known at run time


def expected(hint: Any) -> str:
    """Describe a value of a type."""
    optional = type(None) in get_args(hint)
    kind = get_args(hint)[0] if optional else hint
    if kind in WORDS:
        words = WORDS[kind]
    elif get_origin(kind) is dict:
        words = "a mapping such as {a: 1}"
    elif is_dataclass(item := get_args(kind)[0]):
        words = f"a list of {{{', '.join(f'{inner.name}: …' for inner in fields(item))}}}"
    else:
        words = "a list such as [a,b]" if item is str else "a list such as [1,8]"
    return f"{words} or null" if optional else words


def show(value: Any) -> str:
    """Write a value as on the command line."""
    if isinstance(value, list):
        return f"[{','.join(map(show, value))}]"
    if is_dataclass(value):
        return f"{{{', '.join(f'{key}: {show(inner)}' for key, inner in vars(value).items())}}}"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def build(kind: Any, tree: Any, where: Callable[[Place], str] = lambda _: "", **options: Any) -> Any:
    """Return the section that nested mappings describe, with defaults for missing settings.

    where: returns the start of the message about a place, such as its file. options: of pydantic's `validate_python`;
    context=RULES checks rules as well as types.
    Raises BadInput with a line for each fault.
    """
    try:
        return TypeAdapter(kind).validate_python(tree, **options)
    except ValidationError as error:
        located = [(where(detail["loc"]), _faults(detail, kind, tree)) for detail in error.errors(include_url=False)]
        raise BadInput(*dict.fromkeys(file + fault for file, faults in located for fault in faults)) from None


def _faults(error: ErrorDetails, kind: Any, value: Any) -> Iterator[str]:
    """Say what is wrong with the innermost setting, section or list entry at fault."""
    path, top, prefix = "", kind, ""
    for part in error["loc"]:
        if is_dataclass(kind):
            path, kind = f"{path}.{part}".lstrip("."), get_type_hints(kind).get(str(part))
        elif get_origin(kind) is list and is_dataclass(get_args(kind)[0]):
            path, kind = f"{path}[{part}]", get_args(kind)[0]
            top, prefix = kind, f"{path}."
        else:
            break
        value = value[part]
    if error["type"] == "unexpected_keyword_argument":
        known = [item.path for item in settings(top, prefix)]
        for key in flatten({path: value}):
            close = f"nearest: {', '.join(names)}" if (names := nearest(key, known)) else ""
            none = said if " " in (said := foreign(key)) else "`python launch/run.py help` lists them"
            yield f"{key}: no such key; {close or none}"
    elif is_dataclass(kind):
        yield f"{path}={show(value)}: that is a section; set its keys: {', '.join(item.name for item in fields(kind))}"
    elif error["type"] == RULES:
        yield f"{path}={show(value)} is not possible: {error['msg']}"
    elif kind == list[str] and isinstance(value, str):
        yield f"{path}={show(value)}: expected a list; write {path}=[{show(value)}]"
    else:
        rule = next((item.rule for item in settings(top, prefix) if item.path == path), None)
        yield f"{path}={show(value)}: expected {expected(kind)}{f'; {rule.remedy}' if rule else ''}"
