from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from actors.messages import AdapterRef
from actors.storage.evaluation_folder import SampleFile
from launch.evaluation.view import LINES, EvaluationView, lines, markdown, results, running_estimate, table
from tests.fakes import make_group, make_problem

PROBLEMS = tuple(make_problem(number) for number in range(50))


@pytest.fixture
def sample_files(tmp_path: Path) -> list[SampleFile]:
    return [
        SampleFile(tmp_path / "base.jsonl", PROBLEMS, 1, None),
        SampleFile(tmp_path / "adapter.jsonl", PROBLEMS, 1, AdapterRef(0, 0, "")),
    ]


def figures(n: int, **passes: float) -> dict[str, Any]:
    measured = {name.replace("_", "@"): {"value": value, "ci95": [0.0, 0.75]} for name, value in passes.items()}
    rest = {"mean_length": 99.6, "truncated": 0.25, "format": 0.5, "unjudged": 0.0, "tokens": 12345, "seconds": 240.0}
    return {"n": n, **measured, **rest}


def asked(name: str, problems: int, n: int = 16) -> dict[str, Any]:
    return {"name": name, "problems": problems, "n": n, "dropped": {"duplicate": 2, "too long": 1}}


def document(n: int) -> dict[str, Any]:
    base, adapter = figures(n, pass_1=0.25, maj_n=0.3), figures(n, pass_1=0.5, maj_n=0.6)
    paired = {"difference": 0.25, "ci95": [0.1, 0.4], "p": 0.0123}
    return {
        "protocol": {
            "model": "me/model",
            "dtype": "bfloat16",
            "adapter": "runs/x",
            "adapter_config": {"base": "me/model", "rank": 8},
            "n": 16,
            "temperature": 0.6,
            "top_p": 0.95,
            "max_response_tokens": 3584,
            "seed": 0,
        },
        "benchmarks": [
            {**asked("aime24", 30), "base": base, "adapter": adapter, "paired": paired},
            {**asked("own", 9), "base": figures(4, pass_1=0.2, pass_4=0.9), "adapter": None, "paired": None},
            {**asked("old", 5, n=4), "base": figures(4, pass_1=0.3), "adapter": None, "paired": None},
        ],
    }


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_a_bar_or_a_few_lines(sample_files: list[SampleFile], terminal: bool) -> None:
    console = Console(record=True, width=100, force_terminal=terminal)
    with EvaluationView(console, sample_files) as view:
        for sample_file in sample_files:
            for index, problem in enumerate(PROBLEMS):
                group = make_group(index, scores=(float(index < 10),))
                sample_file.append(0, type(group)(index, problem, None, group.samples, group.rewards), 1.0)
                view.show()
    assert running_estimate(sample_files) == "pass@1 so far: base 0.200, adapter 0.200"
    if not terminal:
        said = console.export_text().splitlines()
        assert len(said) == LINES + 1
        assert said[-1] == "100 of 100 samples, pass@1 so far: base 0.200, adapter 0.200"


def test_table_and_markdown_say_the_same() -> None:
    console = Console(record=True, width=200)
    console.print(table(document(16)))
    shown, pasted = console.export_text(), markdown(document(16))
    assert "9 problems" in shown
    for part in ("aime24", "own", "0.250", "0.000–0.750", "pass@4", "12,345", "4 min", "25%"):
        assert part in shown
        assert part in pasted
    assert pasted.splitlines()[1].count("---") == pasted.splitlines()[0].count("|") - 1


def test_sentences_have_protocol_comparison_and_what_is_missing() -> None:
    said = "\n".join(lines(document(16)))
    assert "temperature 0.6, top_p 0.95, at most 3584 tokens" in said
    assert "aime24: adapter less base +0.250 in pass@1 (95 % interval +0.100 to +0.400, p = 0.012" in said
    assert "adapter: runs/x, of rank 8, made for me/model" in said
    assert "own: 4 of 16 samples a problem so far" in said
    assert "own: beside its 9 problems were dropped: 2 duplicate, 1 too long" in said
    assert "old: 4 of" not in said
    assert "aime24: 16 of" not in said


@pytest.mark.parametrize("width", [60, 80, 120])
def test_every_score_can_be_read_at_every_width(width: int) -> None:
    console = Console(record=True, width=width)
    console.print(results(document(16), width))
    shown = console.export_text()
    assert "…" not in shown
    for words in ("aime24", "own", "30 problems", "pass@1", "adapter", "0.500", "0.000–0.750", "12,345"):
        assert words in shown
