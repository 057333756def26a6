"""Words and pairs of command lines."""

from pathlib import Path

import pytest

from conf.arguments import pairs, run_and_options, words_and_options
from conf.errors import BadInput

OPTIONS = {"show": ("worse", "better"), "limit": ()}


def test_pairs_and_words_are_told_apart(tmp_path: Path) -> None:
    assert pairs(["a=1", "b.c=x=y", "d="], "") == {"a": "1", "b.c": "x=y", "d": ""}
    assert words_and_options(["x", "limit=3", "runs/rate=1e-5"], OPTIONS) == (["x", "runs/rate=1e-5"], {"limit": "3"})
    (tmp_path / "rate=1").mkdir()
    assert run_and_options(["rate=1", "show=worse"], OPTIONS) == (Path("rate=1"), {"show": "worse"})


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "none"),
        (["x", "y"], "x y"),
        (["x", "limt=3"], "nearest: limit"),
        (["x", "show=wors"], "worse, better"),
        (["x", "limit="], "a value"),
        (["x", "limit=1", "limit=2"], "limit=1"),
        (["x", "--limit=3"], "write limit=3"),
        (["x", "--limit", "3"], "write limit=VALUE"),
        (["x", "-v"], "key=value"),
    ],
)
def test_what_is_no_command_line_is_refused(arguments: list[str], named: str) -> None:
    with pytest.raises(BadInput, match=named):
        run_and_options(arguments, OPTIONS)


def test_a_word_among_settings_is_refused() -> None:
    with pytest.raises(BadInput, match="conf=quickstart"):
        pairs(["quikstart"], "a=1", ["conf=quickstart", "lora.rank"])
