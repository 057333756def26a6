import json
import os
from pathlib import Path

import pytest

from actors.storage.run_record import RunRecord
from tests.run_folders import PROBLEMS, write_evaluation, write_run


def test_finished_run_is_read(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", updates=3)
    write_evaluation(folder)
    record = RunRecord(folder)
    assert record.exists
    assert record.config()["lora"]["rank"] == 8
    assert [row["update"] for row in record.rows()] == [1, 2, 3]
    assert len(record.samples("eval-base")) == len(record.samples("eval-final")) == PROBLEMS
    finished, benchmarks = record.finished(), record.benchmarks()
    assert finished is not None
    assert finished == record.summary()
    assert benchmarks is not None
    assert benchmarks["benchmarks"][0]["name"] == "aime24"


@pytest.mark.parametrize("status", ["failed", "halted", "interrupted"])
def test_run_that_can_be_resumed_is_not_finished(tmp_path: Path, status: str) -> None:
    record = RunRecord(write_run(tmp_path / "run", status=status))
    assert record.summary() is not None
    assert record.finished() is None


def test_nothing_is_read_of_what_is_not_there(tmp_path: Path) -> None:
    record = RunRecord(tmp_path / "nowhere")
    assert not record.exists
    assert [record.summary(), record.ledger(), record.evaluation("base"), record.benchmarks()] == [None] * 4
    assert [record.rows(), record.events(), record.samples("eval-base"), record.left_out()] == [[]] * 4
    assert [record.checkpoints.latest, record.checkpoints.best, record.problems_digest()] == [None] * 3
    assert (record.spent, record.incarnation(), record.checkpoints.all, record.sampled_updates()) == (0.0, 0, [], [])


def test_reading_changes_nothing_on_disk(tmp_path: Path) -> None:
    """Not even what a killed process has left half written, which may be a running process's."""
    folder = write_run(tmp_path / "run")
    (folder / "checkpoints" / ".update-000002.tmp").mkdir(parents=True)
    (folder / "adapters" / "policy-v1-r0").mkdir(parents=True)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"update": 41})[:-3])

    def state() -> list[tuple[str, int, int]]:
        found = [Path(place, name) for place, folders, files in os.walk(folder) for name in (*folders, *files)]
        return sorted((str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in found)

    before, record = state(), RunRecord(folder)
    assert len(record.rows()) == 40
    assert record.checkpoints.all == []
    for read in (record.config, record.summary, record.events, record.ledger, record.incarnation):
        read()
    assert record.spent == 0.0
    assert state() == before
