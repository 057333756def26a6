import json
import math
from pathlib import Path
from typing import Any

import pytest

from microbudget_rl.actors.storage.documents import (
    EvaluationDocument,
    Event,
    EventKind,
    MetricsRow,
    Origin,
    PolicyScores,
    RunSummary,
    SweepDocument,
)
from microbudget_rl.actors.storage.files import append_row, read_document, read_rows, write_document
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.parsing import FORMAT
from tests.run_folders import EVALUATION, PLASTICITY, evaluation


def test_metrics_are_kept_as_they_are(tmp_path: Path):
    """Numbers that are not finite, whole numbers and a user's own names."""
    metrics = {"update": 1, "loss": math.inf, "verify/correct": 3, "reward/größe": 0.5}
    append_row(tmp_path / "metrics.jsonl", MetricsRow.model_validate(metrics))
    ((found,), line) = read_rows(tmp_path / "metrics.jsonl", MetricsRow), (tmp_path / "metrics.jsonl").read_text()
    assert found.metrics == json.loads(line) == metrics
    assert isinstance(found.metrics["verify/correct"], int)


def test_document_is_written_with_the_keys_that_it_was_given(tmp_path: Path):
    """Unknown ones among them."""
    document = {
        "status": "completed",
        "eval": {"base": {**evaluation(3), "pass@8": 0.5, "later": 1.0}},
        "plasticity": PLASTICITY,
        "later": [1],
    }
    (tmp_path / "summary.json").write_text(json.dumps(document))
    found = read_document(tmp_path / "summary.json", RunSummary)
    assert found is not None
    assert found.eval.base is not None
    assert found.eval.base.pass_at == {1: 0.125, 8: 0.5}
    write_document(tmp_path / "summary.json", found)
    assert json.loads((tmp_path / "summary.json").read_text()) == document


@pytest.mark.parametrize("kind", EventKind)
@pytest.mark.parametrize("subject", ["", "rollout-0"])
def test_kind_of_an_event_is_known_by_its_text(kind: EventKind, subject: str):
    event = Event.of(kind, subject, update=1, detail="")
    assert event.event.startswith(subject)
    assert Event.model_validate(event.content).kind is kind


@pytest.mark.parametrize("change", [{"format": FORMAT + 1}, {"format": "1"}, {}])
def test_a_file_of_another_format_is_refused(change: dict[str, Any], tmp_path: Path):
    file, document = tmp_path / "sweep.json", SweepDocument(runs=[])
    write_document(file, document)
    assert json.loads(file.read_text()) == {"format": FORMAT, "runs": []}
    assert read_document(file, SweepDocument) is not None
    file.write_text(json.dumps({"runs": "of another type"} | change))
    with pytest.raises(BadInput, match=f"{file} .*format.* {FORMAT}: .*move it") as caught:
        read_document(file, SweepDocument)
    assert len(str(caught.value).splitlines()) == 1


def evaluated(protocol: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return evaluation.json with changes in its protocol and its first benchmark."""
    benchmarks = [EVALUATION["benchmarks"][0] | more, *EVALUATION["benchmarks"][1:]]
    return EVALUATION | {"protocol": EVALUATION["protocol"] | protocol, "benchmarks": benchmarks}


@pytest.mark.parametrize(
    ("kind", "document", "place"),
    [
        (RunSummary, {"status": 3}, "status"),
        (RunSummary, {"status": "failed", "eval": {"base": {"pass@1": "half"}}}, "eval.base.pass@1"),
        (PolicyScores, {**evaluation(3), "pass@1": math.nan}, "pass@1"),
        (PolicyScores, {**evaluation(3), "ci95": [0.9, 0.1]}, "ci95"),
        (EvaluationDocument, evaluated({"adapter_config": {"base": "b"}}), "protocol.adapter_config.rank"),
        (EvaluationDocument, evaluated({}, paired={"difference": 7.0, "p": 0.1}), "benchmarks.0.paired.difference"),
        (MetricsRow, {"update": 1, "loss": "much"}, "loss"),
        (MetricsRow, [], "it"),
        (Origin, {"command": "python launch/run.py conf='a"}, "command"),
    ],
)
def test_damage_is_named_by_its_place(kind: Any, document: Any, place: str, tmp_path: Path):
    (tmp_path / "file.json").write_text(json.dumps(document))
    with pytest.raises(BadInput, match=f"file.json: {place}"):
        read_document(tmp_path / "file.json", kind)
