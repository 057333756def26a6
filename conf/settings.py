"""What a setting is: a dataclass field that carries its default, where that comes from, and the values it may have.

    max_staleness: int = setting(1, "our choice: the least with which generation and learning overlap", ge=0)
    '''The string below the field says what the setting means.'''

`conf/schema/` declares all settings this way.
"""

import ast
import copy
import inspect
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache
from operator import attrgetter
from typing import Any, get_args, get_origin

from conf import documents
from conf.errors import BadInput

MOST = 10**9
"""Of any number that has no bound of its own: beyond it, products of two settings are no sizes any more."""

WORDS: dict[Any, str] = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


@dataclass(frozen=True)
class Rule:
    """A condition on a value.

    allows: whether a value will do.
    remedy: what to do instead, as an imperative.
    """

    allows: Callable[[Any], bool]
    remedy: str


@dataclass(frozen=True)
class Setting:
    """One setting and what is known of it.

    path: dotted, as on the command line.
    kind: its type.
    section: the dataclass that declares it.
    source, rule, resumable: see `setting`.
    """

    path: str
    kind: Any
    section: type
    source: str
    rule: Rule | None
    resumable: bool

    @property
    def meaning(self) -> str:
        return meanings(self.section).get(self.path.rpartition(".")[2], "")


def setting(
    default: Any,
    source: str,
    *,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    choices: Sequence[str] = (),
    rule: Rule | None = None,
    resumable: bool = False,
) -> Any:
    """Declare a field of a section. A value of null passes every condition.

    source: where the default comes from. ge, gt, le: bounds of a number, which is finite. choices: all values it may
    have. rule: any other condition. resumable: whether a run may be resumed with another value, because it says where
    and how fast the run is done, not what is learned from what.
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
    facts = {"source": source, "rule": rule, "resumable": resumable}
    if isinstance(default, list | dict):
        return field(default_factory=lambda: copy.copy(default), metadata=facts)
    return field(default=default, metadata=facts)


def section(kind: type, *, resumable: bool = False) -> Any:
    """Declare a field that is a section of settings. resumable: all of them are."""
    return field(default_factory=kind, metadata={"resumable": resumable})


def settings(kind: Any, prefix: str = "", resumable: bool = False) -> Iterator[Setting]:
    """Yield all settings of a section and of those within it, in order."""
    for item in fields(kind):
        path, facts = prefix + item.name, {**item.metadata}
        facts["resumable"] |= resumable
        if is_dataclass(item.type):
            yield from settings(item.type, f"{path}.", facts["resumable"])
        else:
            yield Setting(path, item.type, kind, **facts)


def check_values(config: Any) -> None:
    """Raise BadInput for the first value that its setting does not allow."""
    for item in settings(type(config)):
        value = attrgetter(item.path)(config)
        if item.rule and value is not None and not item.rule.allows(value):
            raise BadInput(f"{item.path}={value} is not possible: {item.rule.remedy}")


LISTS: dict[Any, str] = {int: "[1,8]", float: "[0.5,1]"}
"""Of these types, an example."""


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


def fits(value: Any, kind: Any) -> bool:
    """Whether a value is of a setting's type, or refers to one that may be (`${…}`).

    A number does for a text, as in run.name=7, and no text for a number.
    """
    if isinstance(value, str) and "${" in value:
        return True
    if any(each == "???" for each in (value if isinstance(value, list) else [value])):  # OmegaConf's: yet to be given
        return False
    if get_origin(kind) is list:
        item = get_args(kind)[0]
        return isinstance(value, list) and (is_dataclass(item) or all(fits(each, item) for each in value))
    if str in (kind, *get_args(kind)) and get_origin(kind) is not dict:
        kind = kind | int | float | bool
    return documents.fits(value, kind)


def show(value: Any) -> str:
    """Write a value as YAML has it, but for lists and mappings."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


@cache
def meanings(kind: type) -> dict[str, str]:
    """Return the strings below the fields of a section, by field."""
    found = {}
    for declared in kind.__mro__[:-1]:
        body = ast.parse(inspect.getsource(declared)).body[0].body  # type: ignore[attr-defined]  # of a class
        for pair in itertools.pairwise(body):
            match pair:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    found[name] = " ".join(text.split())
    return found
