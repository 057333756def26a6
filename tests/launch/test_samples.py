import json
from pathlib import Path

import pytest

from launch import samples
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
    ("arguments", "expected"),
    [
        ([], ["wrong a", "wrong b", "unparsable b", "correct c", "correct a"]),
        (["show=worse"], ["wrong a", "wrong b", "unparsable b"]),
        (["show=better", "limit=1"], ["correct c"]),
        (["show=wrong"], ["wrong c"]),
        (["verdict=unparsable"], ["unparsable b"]),
        (["show=all", "verdict=wrong"], ["wrong a", "wrong b", "wrong c"]),
    ],
)
def test_chosen_responses_are_shown(
    arguments: list[str], expected: list[str], run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert samples.main([str(run), *arguments]) == 0
    said = capsys.readouterr().out
    shown = [line.split("│")[2].strip() for line in said.splitlines() if line.count("│") == 3 and "," not in line]
    assert shown == expected
    assert f"{expected[0].split()[1]}\nreference answer: 7" in said
    assert f"Shown {len(expected)} of " in said
    assert "3 right before, wrong after; 2 wrong before, right after" in " ".join(said.split())


def test_responses_do_not_steer_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert samples.main([str(write_run(tmp_path / "mine")), "show=better", "limit=1"]) == 0
    said = capsys.readouterr().out
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
