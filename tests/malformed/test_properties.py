"""Whatever is typed, and whatever becomes of a file: exit code 0 or 2, and nothing lost.

EXAMPLES=100 tries 100 examples, other ones each time.
"""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conf.schema import Config
from conf.settings import settings as all_settings
from tests.malformed.commands import TARGETS, Prepare, copied, tried
from tests.malformed.stock import Stock

MORE = os.environ.get("EXAMPLES")
some = settings(
    max_examples=int(MORE or 5),
    derandomize=not MORE,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

pytestmark = pytest.mark.timeout(300)

KEYS = [item.path for item in all_settings(Config)]
WORDS = st.one_of(
    st.text(max_size=12),
    st.floats().map(str),
    st.integers().map(str),
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
        max_leaves=6,
    ).map(repr),
)


def ends_well(command: str, prepare: Prepare, stock: Stock) -> None:
    with tempfile.TemporaryDirectory() as place:
        assert tried(command, prepare, Path(place), stock, resumes=True) == ""


@some
@given(key=st.sampled_from(KEYS) | st.text(max_size=20), word=WORDS)
def test_whatever_setting_is_typed(stock: Stock, key: str, word: str) -> None:
    def prepare(place: Path, stock: Stock) -> list[str]:
        kept = stock.without(key, *(["model.path"] if key.partition(".")[0] == "model" else []))
        return [*kept, *([] if key == "plan" else ["plan=true"]), "run.name=x", f"{key}={word}"]

    ends_well("run", prepare, stock)


HOW: dict[str, Callable[[bytes, int, bytes], bytes]] = {
    "cut": lambda content, at, _: content[:at],
    "flipped": lambda content, at, _: (
        content[:at] + bytes(byte ^ 0x55 for byte in content[at : at + 1]) + content[at + 1 :]
    ),
    "mixed": lambda content, at, other: content[:at] + other + content[at:],
    "another": lambda _, __, other: other,
}
"""Ways to damage a file: from its content, a place in it and some other content."""

OTHER = st.sampled_from([b"", b"null", b"[]", b"{}", b'""', b"-1", b"1e999", b"NaN", b"\xff", b"\0", b"9" * 5000])


@pytest.mark.parametrize("command", TARGETS)
@some
@given(which=st.integers(0, 1000), how=st.sampled_from([*HOW, "folder"]), at=st.integers(0, 2**20), other=OTHER)
def test_whatever_becomes_of_a_file(stock: Stock, command: str, which: int, how: str, at: int, other: bytes) -> None:
    def damage(copy: Path) -> None:
        files = sorted(file for file in copy.rglob("*") if file.is_file() and not file.is_symlink())
        file = files[which % len(files)]
        content = file.read_bytes()
        if how == "folder":
            file.unlink()
            file.mkdir()
        else:
            file.write_bytes(HOW[how](content, at % (len(content) + 1), other))

    ends_well(command, copied(command, damage), stock)
