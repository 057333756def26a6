"""What a setting is: a field of a pydantic dataclass that carries all that is known of it.

    max_staleness: int = setting(1, "our choice: the least with which generation and learning overlap", ge=0)
    '''The string below the field says what the setting means.'''

`conf/schema/` declares all settings this way.
"""

import copy
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, get_args, get_origin, get_type_hints

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError, ValidationInfo
from pydantic_core import ErrorDetails, PydanticCustomError

from conf.errors import BadInput
from conf.suggestions import nearest

DECLARED = ConfigDict(extra="forbid", use_attribute_docstrings=True, coerce_numbers_to_str=True)
"""How pydantic is to read a section. A number does for a text, as in run.name=7, and no text for a number."""

MOST = 10**9
"""Of any number that has no bound of its own: beyond it, products of two settings are no sizes any more."""

WORDS: dict[Any, str] = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}

LISTS: dict[Any, str] = {int: "[1,8]", float: "[0.5,1]"}
"""Of these types, an example."""

CLOCK_TIME = re.compile(r"\d+(:\d\d)+")

HELP = "`python launch/run.py help` lists them"

Place = tuple[str | int, ...]
"""Names, and positions in lists, on the way to a value in nested mappings."""

RULES = "rules"
"""In the context of a validation: whether rules count."""


@dataclass(frozen=True)
class Rule:
    """A condition on a value. A value of null passes every one.

    allows: whether a value will do.
    remedy: what to do instead, as an imperative.
    """

    allows: Callable[[Any], bool]
    remedy: str

    def check(self, value: Any, info: ValidationInfo) -> Any:
        """Return the value. Raises pydantic's error if rules count and it is not allowed."""
        if value is not None and info.context == RULES and not self.allows(value):
            raise PydanticCustomError(RULES, "{remedy}", {"remedy": self.remedy})
        return value


@dataclass(frozen=True)
class Setting:
    """One setting and what is known of it.

    path: dotted, as on the command line.
    kind: its type.
    section: the dataclass that declares it.
    meaning: the string below its field, on one line.
    source, rule and all that follow: see `setting`.
    """

    path: str
    kind: Any
    section: type
    meaning: str
    source: str = ""
    rule: Rule | None = None
    replaces: tuple[str, ...] = ()
    resumable: bool = False
    private: bool = False
    momentary: bool = False


def setting(
    default: Any,
    source: str,
    *,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    choices: Sequence[str] = (),
    rule: Rule | None = None,
    **known: Any,
) -> Any:
    """Declare a field of a section.

    source: where the default comes from. ge, gt, le: bounds of a number, which is finite. choices: all values it may
    have. rule: any other condition. known: as far as they are not false,
    - replaces: settings of the section that return to their defaults where a layer sets this one without them;
    - resumable: a run may be resumed with another value, because it says where and how fast the run is done, not what
      is learned from what;
    - private: it is the business of a run's owner, and shown nowhere but in the run's folder;
    - momentary: it is about one call of a command, and its change says nothing about the run.
    """
    if choices:
        rule = Rule(lambda value: value in choices, f"use one of {', '.join(choices)}")
    elif gt is not None:
        most = MOST if le is None else le
        rule = Rule(lambda value: gt < value <= most, f"use a number above {gt}, up to {most:,}")
    elif ge is not None and le is not None:
        rule = Rule(lambda value: ge <= value <= le, f"use a value from {ge} to {le}")
    elif ge is not None:
        rule = Rule(lambda value: ge <= value <= MOST, f"use {ge} or more, up to {MOST:,}")
    facts = {"source": source, "rule": rule, **known}
    field: Any = Field(
        default_factory=lambda: copy.copy(default), strict=not isinstance(default, str), json_schema_extra=facts
    )
    if rule:
        field.metadata.append(AfterValidator(rule.check))
    return field


def section(kind: type, **known: bool) -> Any:
    """Declare a field that is a section of settings. known: what is true of all of them, as in `setting`."""
    return Field(default_factory=kind, json_schema_extra=known)  # type: ignore[arg-type]  # JSON indeed


def settings(kind: Any, prefix: str = "", **known: bool) -> Iterator[Setting]:
    """Yield all settings of a section and of those within it, in order."""
    kinds = get_type_hints(kind)
    for name, field in kind.__pydantic_fields__.items():
        path, inner, facts = prefix + name, kinds[name], {**(field.json_schema_extra or {}), **known}
        if is_dataclass(inner):
            yield from settings(inner, f"{path}.", **facts)
        else:
            yield Setting(path, inner, kind, _meaning(kind, name), **facts)


def _meaning(kind: type, name: str) -> str:
    """Return the string below a field, on one line; pydantic has it at the class that declares the field alone."""
    declared = (getattr(each, "__pydantic_fields__", {}).get(name) for each in kind.__mro__)
    return next((" ".join(field.description.split()) for field in declared if field and field.description), "")


def expected(hint: Any) -> str:
    """Say what a value of a type looks like."""
    optional = type(None) in get_args(hint)
    kind = get_args(hint)[0] if optional else hint
    if kind in WORDS:
        words = WORDS[kind]
    elif get_origin(kind) is dict:
        words = "a mapping such as {a: 1}"
    elif is_dataclass(item := get_args(kind)[0]):
        words = f"a list of {{{', '.join(f'{inner.name}: …' for inner in fields(item))}}}"
    else:
        words = f"a list such as {LISTS.get(item, '[a,b]')}"
    return f"{words} or null" if optional else words


def show(value: Any) -> str:
    """Write a value as YAML has it, but for lists and mappings."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def build(kind: Any, tree: Any, where: Callable[[Place], str] = lambda _: "", **options: Any) -> Any:
    """Return the section that nested mappings describe; what they leave out is at its default.

    where: what stands before the sentence about a place, such as its file. options: of pydantic's `validate_python`;
    context=RULES where rules count, besides types.
    Raises BadInput for everything that is wrong, a line for each.
    """
    try:
        return TypeAdapter(kind).validate_python(tree, **options)
    except ValidationError as error:
        faults = error.errors(include_url=False)
        raise BadInput(*(where(each["loc"]) + _fault(each, kind, tree) for each in faults)) from None


def _fault(error: ErrorDetails, kind: Any, value: Any) -> str:
    """Say what is wrong, in terms of the innermost setting, section or entry of a list that it is wrong with."""
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
        close = nearest(path, [item.path for item in settings(top, prefix)])
        return f"{path}: no such key; nearest: {', '.join(close)}" if close else f"{path}: no such key; {HELP}"
    if is_dataclass(kind):
        return f"{path}={show(value)}: that is a section; set its keys: {', '.join(item.name for item in fields(kind))}"
    if error["type"] == RULES:
        return f"{path}={show(value)} is not possible: {error['msg']}"
    clock = ", such as 1.5 for 1:30" if CLOCK_TIME.fullmatch(str(value)) else ""
    return f"{path}={show(value)}: expected {expected(kind)}{clock}"
