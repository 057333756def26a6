import json
from pathlib import Path

import pytest

from microbudget_rl.actors.messages import AdapterRef
from microbudget_rl.actors.storage.checkpoints import STATE
from microbudget_rl.actors.storage.documents import EventKind
from microbudget_rl.actors.storage.folders import mark
from microbudget_rl.actors.storage.run_folder import RunFolder
from microbudget_rl.actors.storage.run_record import RunRecord
from microbudget_rl.conf.errors import BadInput
from tests.actors.storage.test_checkpoints import damage, save
from tests.fakes import make_group
from tests.run_folders import write_run


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return reopen(tmp_path)


def reopen(path: Path) -> RunFolder:
    """As the next process of the run does."""
    folder = RunFolder(path)
    folder.recover()
    return folder


def updates(folder: RunRecord) -> list[int]:
    return [row.update for row in folder.rows()]


def test_rows_after_the_newest_checkpoint_and_half_a_row_are_cut_at_a_resume(folder: RunFolder):
    for update in (1, 2, 3):
        folder.append_metrics(update, {"reward/mean": 0.5})
        folder.append_solved(update, {"a": 0.5}, validation=update == 1)
    before = folder.metrics.read_text()
    save(folder.checkpoints, 2)
    with folder.metrics.open("a") as file:
        file.write('{"update": 1, "rew')
    assert updates(reopen(folder.path)) == [1, 2]
    assert [(row.update, row.validation) for row in folder.solved()] == [(1, True), (2, False)]
    assert before.startswith(folder.metrics.read_text())


def test_validation_of_a_version_without_a_row_changes_no_other_row(folder: RunFolder):
    folder.append_metrics(1, {"validation/pass@1": 0.25})
    for version, rows in ((2, 2), (1, 1)):
        found = folder.extend_metrics(version, {"validation/pass@1": 0.5})
        assert [row["validation/pass@1"] for row in found] == [0.25, 0.5][-rows:]


def test_only_the_versions_in_use_stay(folder: RunFolder, tmp_path: Path):
    adapters = [AdapterRef(version, 0, str(folder.adapters / f"policy-v{version}-r0")) for version in range(3)]
    for adapter in adapters:
        Path(adapter.path).mkdir()
    (folder.adapters / "synthetic-1").mkdir()
    folder.drop_adapters(keep=(adapters[1], adapters[2]))
    assert sorted(path.name for path in folder.adapters.iterdir()) == ["policy-v1-r0", "policy-v2-r0"]
    RunFolder(tmp_path / "none").drop_adapters(keep=())


def test_versions_of_a_run_with_its_own_ray_are_in_the_sessions_folder(
    folder: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (session := tmp_path / "session").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(session))
    assert RunFolder(folder.path).adapters == folder.adapters
    mark(session, "ray-session")
    again = reopen(folder.path)
    assert again.adapters == session / "adapters"
    for name in ("policy-v1-r0/adapter_config.json", "mine/notes.txt"):
        (again.adapters / name).parent.mkdir()
        (again.adapters / name).touch()
    again.drop_adapters(keep=())
    assert [path.name for path in again.adapters.iterdir()] == ["mine"]


def test_samples_say_what_was_prompted_answered_and_earned(folder: RunFolder):
    folder.write_samples("update-000001", (make_group(0, version=3),))
    assert folder.sampled("update") == ["update-000001"]
    samples = folder.samples("update-000001")
    assert [(row.version, row.gold, row.reward, row.status) for row in samples] == [
        (3, "1", 1.0, "correct"),
        (3, "1", 0.0, "wrong"),
    ]


def test_rows_of_a_damaged_checkpoint_go_and_an_event_says_so(folder: RunFolder):
    for version in (1, 2, 3):
        folder.append_metrics(version, {"reward/mean": 0.5})
        save(folder.checkpoints, version)
    damage(folder.checkpoints, 3)
    again = reopen(folder.path)
    assert updates(again) == [1, 2]
    (event,) = again.events()
    assert (event.update, event.kind, STATE in event.detail) == (3, EventKind.CHECKPOINT_REFUSED, True)


def test_what_a_killed_process_left_half_done_goes(folder: RunFolder):
    assert (folder.path / "events.jsonl").read_text() == ""
    save(folder.checkpoints, 1)
    (folder.adapters / "policy-v1-r0").mkdir()
    (folder.adapters / ".policy-v2-r0.tmp").mkdir()
    folder.append_event(1, EventKind.DIED, "of old age", "learner")
    with (folder.path / "events.jsonl").open("a") as file:
        file.write('{"update": 1, "ev')
    before_recovery = RunFolder(folder.path)
    before_recovery.drop_half_event()
    before_recovery.append_event(1, EventKind.CUT_OFF, "before it has recovered")
    again = reopen(folder.path)
    again.append_event(2, EventKind.DIED, "again", "learner")
    assert list(again.adapters.iterdir()) == []
    assert [event.event for event in again.events()] == ["learner died", "cut off", "learner died"]


def test_nothing_is_read_of_what_is_not_there(tmp_path: Path):
    record = RunRecord(tmp_path / "nowhere")
    assert not record.exists
    assert [record.summary(), record.ledger(), record.evaluation("base")] == [None] * 3
    assert [record.rows(), record.events(), record.samples("eval-base"), record.filtered()] == [[]] * 4
    assert [record.checkpoints.latest, record.checkpoints.best, record.problem_digests()] == [None] * 3
    assert (record.spent, record.incarnation(), record.checkpoints.all, record.sampled("update")) == (0.0, 0, [], [])


def test_reading_changes_nothing_on_disk(tmp_path: Path):
    """Not even what a killed process has left half written, which may be a running process's."""
    folder = write_run(tmp_path / "run")
    (folder / "checkpoints" / ".update-000002.tmp").mkdir(parents=True)
    (folder / "adapters" / "policy-v1-r0").mkdir(parents=True)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"update": 41})[:-3])

    def state() -> list[tuple[str, int, int]]:
        return sorted((str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*"))

    before, record = state(), RunFolder(folder)
    assert (len(record.rows()), record.checkpoints.all) == (40, [])
    record.check()
    assert state() == before
    (folder / "origin.json").write_text("{")
    with pytest.raises(BadInput, match=r"origin\.json"):
        record.check()
