"""Whatever is typed, and whatever becomes of a file: exit code 0 or 2 within the deadline, and nothing lost."""

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conf.schema import Config
from conf.settings import settings as all_settings
from tests.hostile.battery import tried
from tests.hostile.case import Case
from tests.hostile.models import settings_without
from tests.hostile.stock import RUN, Stock

few = settings(
    max_examples=6, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

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


def ends_well(case: Case, stock: Stock) -> None:
    with tempfile.TemporaryDirectory() as place:
        assert tried(case, Path(place), stock) == ""


@few
@given(key=st.sampled_from(KEYS) | st.text(max_size=20), word=WORDS)
def test_whatever_is_typed(stock: Stock, key: str, word: str) -> None:
    def prepare(place: Path, stock: Stock) -> list[str]:
        section = key.partition(".")[0]
        given = settings_without(stock, key, *(["model.path"] if section == "model" else []))
        return [*given, "plan=true", f"{key}={word}"] if key != "plan" else [*given, f"plan={word}", "run.name=x"]

    ends_well(Case("", "", "run", prepare, None, resumes=True), stock)


def damaged(content: bytes, how: str, at: int, other: bytes) -> bytes:
    """Return a file's content cut, flipped, doubled, emptied, or with something else in it or in its place."""
    at = at % (len(content) + 1)
    return {
        "cut": content[:at],
        "flipped": bytes(byte ^ (0x55 if place == at else 0) for place, byte in enumerate(content)),
        "doubled": content + content[at:],
        "emptied": b"",
        "mixed": content[:at] + other + content[at:],
        "another": other,
    }[how]


HOW = st.sampled_from(["cut", "flipped", "doubled", "emptied", "mixed", "another"])
OTHER = st.sampled_from([b"null", b"[]", b"{}", b'""', b"-1", b"1e999", b"NaN", b"\xff", b"\0", b"[[[[", b'{"a": 1}\n'])
AT = st.integers(0, 2**20)


def folder_of(stock: Stock, command: str) -> Path:
    folders = {"report": stock.finished, "run": stock.unfinished, "evaluate": stock.unfinished}
    return {**folders, "problems": stock.model, "adapter": stock.adapter}[command]


def arguments_for(stock: Stock, command: str, folder: Path) -> list[str]:
    last = f"adapter={folder / RUN / 'checkpoints' / 'latest'}"
    return {
        "report": [str(folder)],
        "run": [*stock.settings, f"run.folder={folder}", f"run.name={RUN}"],
        "evaluate": [last, "n=1", "device=cpu", "reward.workers=1", "plan=true"],
        "problems": [
            f"file:{stock.data}",
            *settings_without(stock, "model.path", "data.source"),
            f"model.path={folder}",
        ],
        "adapter": [*stock.settings, f"adapter={folder}", "n=1", "plan=true", f"run.folder={folder.parent / 'runs'}"],
    }[command]


@pytest.mark.parametrize("command", ["report", "run", "evaluate", "problems", "adapter"])
@few
@given(which=st.integers(0, 1000), how=HOW, at=AT, other=OTHER)
def test_whatever_becomes_of_a_file(stock: Stock, command: str, which: int, how: str, at: int, other: bytes) -> None:
    def prepare(place: Path, stock: Stock) -> list[str]:
        folder = place / "folder"
        shutil.copytree(folder_of(stock, command), folder, symlinks=True)
        files = sorted(file for file in folder.rglob("*") if file.is_file() and not file.is_symlink())
        file = files[which % len(files)]
        file.write_bytes(damaged(file.read_bytes(), how, at, other))
        return arguments_for(stock, command, folder)

    ends_well(Case("", "", {"adapter": "evaluate"}.get(command, command), prepare, None, resumes=True), stock)
