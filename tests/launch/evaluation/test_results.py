from typing import Any

from rich.console import Console

from actors.storage.documents import EvaluationDocument
from conf.parsing import FORMAT
from launch.evaluation.results import markdown, table
from launch.reporting.benchmarks import table_rows


def figures(n: int, **passes: float) -> dict[str, Any]:
    measured = {name.replace("_", "@"): {"value": value, "ci95": [0.0, 0.75]} for name, value in passes.items()}
    rest = {
        "mean_length": 99.6,
        "truncated": 0.25,
        "format": 0.5,
        "unverified": 0.125,
        "tokens": 12345,
        "seconds": 240.0,
    }
    return {"n": n, **measured, **rest}


def asked(name: str, problems: int, n: int = 16) -> dict[str, Any]:
    return {"name": name, "problems": problems, "n": n, "dropped": {"duplicate": 2, "too long": 1}}


def document(n: int) -> EvaluationDocument:
    base, adapter = figures(n, pass_1=0.25, maj_n=0.3), figures(n, pass_1=0.5, maj_n=0.6)
    paired = {"difference": 0.25, "ci95": [0.1, 0.4], "p": 0.0123}
    content = {
        "format": FORMAT,
        "protocol": {
            "model": "me/model",
            "dtype": "bfloat16",
            "adapter": "runs/x",
            "adapter_config": {"base": "me/_model_", "rank": 8},
            "temperature": 0.6,
            "top_p": 0.95,
            "max_response_tokens": 3584,
            "seed": 0,
        },
        "benchmarks": [
            {**asked("aime24", 30), "base": base, "adapter": adapter, "paired": paired},
            {**asked("own", 9), "base": figures(4, pass_1=0.2, pass_4=0.9), "adapter": None, "paired": None},
            {**asked("short", 5, n=4), "base": figures(4, pass_1=0.3), "adapter": None, "paired": None},
        ],
    }
    return EvaluationDocument.model_validate(content)


def test_table_of_80_columns_and_markdown_say_the_same() -> None:
    console = Console(record=True, width=80)
    console.print(table(document(16)))
    shown, pasted = console.export_text(), markdown(document(16))
    for row in table_rows(document(16)):
        for cell in row:
            assert cell in shown
            assert cell in pasted
    assert ("", "pass@1", "0.250 (0.000–0.750)", "0.500 (0.000–0.750)") in table_rows(document(16))
    assert ("", "unverified", "12.5%", "12.5%") in table_rows(document(16))
    assert ("", "pass@4", "0.900 (0.000–0.750)", "") in table_rows(document(16))
    assert "of rank 8, made for me/\\_model\\_" in pasted
    assert pasted.splitlines()[1].count("---") == pasted.splitlines()[0].count("|") - 1
