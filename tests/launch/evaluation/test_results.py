from typing import Any

from rich.console import Console

from actors.storage.documents import EvaluationDocument
from launch.evaluation.results import markdown, results_table
from launch.reporting.tables import evaluation_rows
from tests.run_folders import EVALUATION, scores


def result(name: str, base: dict[str, Any], adapter: dict[str, Any] | None = None) -> dict[str, Any]:
    paired = {"difference": 0.25, "ci95": [0.1, 0.4], "p": 0.0123} if adapter else None
    return {
        "name": name,
        "problems": 9,
        "n": 16,
        "filtered_counts": {"too long": 1},
        "base": base,
        "adapter": adapter,
    } | {"paired": paired}


def test_table_of_80_columns_and_markdown_say_the_same() -> None:
    voted = {"maj@n": 0.3, "intervals": {"maj@n": [0.1, 0.5]}, "unverified": 0.125}
    benchmarks = [
        result("aime24", scores(16, 9, {1: 0.25}) | voted, scores(16, 9, {1: 0.5}) | voted),
        result("own", scores(4, 9, {1: 0.2, 4: 0.9})),
    ]
    adapter = {"adapter": "runs/x", "adapter_config": {"base": "me/_model_", "rank": 8}}
    found = {"protocol": EVALUATION["protocol"] | adapter, "benchmarks": benchmarks}
    document = EvaluationDocument.model_validate(EVALUATION | found)
    console = Console(record=True, width=80)
    console.print(results_table(document))
    shown, pasted, rows = console.export_text(), markdown(document), evaluation_rows(document)
    for row in rows:
        for cell in row:
            assert cell in shown
            assert cell in pasted
    assert ("", "pass@1", "0.250 (0.150–0.350)", "0.500 (0.400–0.600)") in rows
    assert ("", "maj@n", "0.300 (0.100–0.500)", "0.300 (0.100–0.500)") in rows
    assert ("", "unverified", "12.5%", "12.5%") in rows
    assert ("", "pass@4", "0.900 (0.800–1.000)", "") in rows
    assert "of rank 8, made for me/\\_model\\_" in pasted
    assert pasted.splitlines()[1].count("---") == pasted.splitlines()[0].count("|") - 1
