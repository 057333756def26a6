import json
from pathlib import Path

import pytest

from conf.command import PlainConsole
from launch import samples
from launch.samples import choose, read_pairs, show
from tests.run_folders import write_run


def rows(**statuses: tuple[str, ...]) -> str:
    """samples/*.jsonl with these verdicts, by problem."""
    texts = [
        {
            "problem": problem,
            "prompt": f"solve\n{problem}\nnow",
            "gold": "7",
            "response": f"{status} {problem}",
            "tokens": 5,
            "finish_reason": "stop",
            "status": status,
        }
        for number in range(2)
        for problem, of_problem in statuses.items()
        for status in of_problem[number : number + 1]
    ]
    return "".join(json.dumps(text) + "\n" for text in texts)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = write_run(tmp_path / "mine")
    (folder / "samples" / "eval-base.jsonl").write_text(
        rows(a=("correct", "wrong"), b=("correct", "correct"), c=("wrong", "wrong"), d=("correct", "correct"))
    )
    (folder / "samples" / "eval-final.jsonl").write_text(
        rows(a=("wrong", "correct"), b=("wrong", "unparsable"), c=("correct", "wrong"), d=("correct", "correct"))
    )
    return folder


@pytest.mark.parametrize(
    ("shown", "verdict", "expected"),
    [
        ("", "", ["wrong b", "unparsable b", "wrong a", "correct a", "correct c"]),
        ("worse", "", ["wrong b", "unparsable b", "wrong a"]),
        ("better", "", ["correct a", "correct c"]),
        ("wrong", "", ["wrong c"]),
        ("right", "", ["correct d", "correct d"]),
        ("", "unparsable", ["unparsable b"]),
        ("all", "wrong", ["wrong b", "wrong a", "wrong c"]),
    ],
)
def test_what_lost_most_comes_first(shown: str, verdict: str, expected: list[str], run: Path) -> None:
    assert [pair.after.response for pair in choose(read_pairs(run), shown, verdict)] == expected


def test_shows_both_answers_and_counts(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert samples.main([str(run), "limit=1"]) == 0
    said = capsys.readouterr().out
    assert "b\ngold: 7" in said
    assert "correct b" in said
    assert "wrong, 5 tokens, stop" in said
    assert "Shown 1 of 5; of all answers: 3 right before, wrong after; 2 wrong before, right after" in " ".join(
        said.split()
    )


def test_answers_do_not_steer_the_terminal(tmp_path: Path) -> None:
    console = PlainConsole(record=True, width=120, file=(tmp_path / "out").open("w"), force_terminal=True)
    show(choose(read_pairs(write_run(tmp_path / "mine")), "better", "")[:1], console)
    said = console.export_text()
    assert "alert(1)" in said
    assert "\x1b" not in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "nowhere"),
        (["mine", "show=both"], "show=both"),
        (["mine", "verdict=false"], "verdict=false"),
        (["mine", "limit=0"], "limit=0"),
        (["mine", f"limit={'9' * 5000}"], "limit=999"),
        (["unended"], "samples/eval-final.jsonl"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "mine")
    write_run(tmp_path / "unended", after=None)
    assert samples.main(arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
