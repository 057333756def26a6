import asyncio
import json
import threading
from pathlib import Path

import pytest

from actors.messages import AdapterRef
from actors.storage import run_folder
from actors.storage.files import seal
from actors.storage.run_folder import RunFolder
from conf.errors import BadInput
from tests.fakes import make_group


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path, keep_last=2)


def checkpoint(folder: RunFolder, version: int, validation: float | None = None) -> None:
    async def write() -> None:
        async with folder.new_checkpoint(version) as path:
            (path / "coordinator.json").write_text(json.dumps({"version": version, "validation": validation}))

    asyncio.run(write())


def test_latest_is_the_newest_whole_checkpoint_and_old_ones_go(folder: RunFolder) -> None:
    assert folder.checkpoint is None
    for version in (1, 2, 3):
        checkpoint(folder, version)
    assert folder.checkpoint == folder.path.resolve() / "checkpoints" / "update-000003"
    assert sorted(p.name for p in (folder.path / "checkpoints").glob("update-*")) == ["update-000002", "update-000003"]


def test_other_work_goes_on_while_a_checkpoint_is_hashed(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Signals, timeouts, heartbeats: gigabytes on a slow disk take minutes."""

    async def save() -> None:
        looked_at = threading.Event()

        def slow_seal(path: Path) -> None:
            assert looked_at.wait(timeout=60), "nothing else had its turn"
            seal(path)

        monkeypatch.setattr(run_folder, "seal", slow_seal)
        asyncio.get_running_loop().call_later(0.01, looked_at.set)
        async with folder.new_checkpoint(1) as path:
            (path / "coordinator.json").write_text("{}")

    asyncio.run(save())
    assert folder.checkpoint is not None


def test_checkpoint_that_fails_half_way_is_not_seen(folder: RunFolder) -> None:
    checkpoint(folder, 1)

    async def fail() -> None:
        async with folder.new_checkpoint(2) as path:
            (path / "half").write_text("half")
            raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError):
        asyncio.run(fail())
    assert folder.checkpoint is not None
    assert folder.checkpoint.name == "update-000001"


def test_rows_after_the_newest_checkpoint_are_cut_at_a_resume(folder: RunFolder) -> None:
    for update in (1, 2, 3):
        folder.append_metrics(update, {"reward/mean": 0.5})
    checkpoint(folder, 2)
    RunFolder(folder.path, keep_last=2)
    rows = [json.loads(line) for line in (folder.path / "metrics.jsonl").read_text().splitlines()]
    assert [row["update"] for row in rows] == [1, 2]


def test_row_that_a_crash_cut_off_is_dropped(folder: RunFolder) -> None:
    folder.append_metrics(1, {"reward/mean": 0.5})
    checkpoint(folder, 1)
    with (folder.path / "metrics.jsonl").open("a") as file:
        file.write('{"update": 1, "rew')
    RunFolder(folder.path, keep_last=2)
    assert len((folder.path / "metrics.jsonl").read_text().splitlines()) == 1


def test_checkpoints_of_an_abandoned_future_do_not_push_out_the_newest(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, keep_last=1)
    checkpoint(folder, 20)
    checkpoint(folder, 15)
    assert folder.checkpoint is not None
    assert folder.checkpoint.name == "update-000015"
    assert [path.name for path in (tmp_path / "checkpoints").glob("update-*")] == ["update-000015"]


def test_incarnations_are_never_given_twice(folder: RunFolder) -> None:
    assert [folder.next_incarnation(), RunFolder(folder.path, 2).next_incarnation()] == [1, 2]


def test_time_spent_survives_the_process(folder: RunFolder) -> None:
    assert folder.spent == 0.0
    folder.write_spent(12.5, {})
    assert RunFolder(folder.path, 2).spent == 12.5


def test_only_the_versions_in_use_stay(folder: RunFolder) -> None:
    adapters = [AdapterRef(version, 0, str(folder.adapters / f"policy-v{version}-r0")) for version in range(3)]
    for adapter in adapters:
        Path(adapter.path).mkdir()
    folder.drop_adapters(keep=(adapters[1], adapters[2]))
    assert sorted(path.name for path in folder.adapters.iterdir()) == ["policy-v1-r0", "policy-v2-r0"]


def test_samples_say_what_was_asked_said_and_earned(folder: RunFolder) -> None:
    folder.write_samples("update-000001", (make_group(0, version=3),))
    rows = [json.loads(line) for line in (folder.path / "samples" / "update-000001.jsonl").read_text().splitlines()]
    assert [(row["version"], row["gold"], row["reward"], row["status"]) for row in rows] == [
        (3, "1", 1.0, "correct"),
        (3, "1", 0.0, "wrong"),
    ]


def test_damaged_checkpoint_gives_way_to_the_one_before_and_its_rows_go(folder: RunFolder) -> None:
    for version in (1, 2, 3):
        folder.append_metrics(version, {"reward/mean": 0.5})
        checkpoint(folder, version)
    (folder.path / "checkpoints" / "update-000003" / "coordinator.json").write_text("{}")
    again = RunFolder(folder.path, keep_last=2)
    assert again.checkpoint is not None
    assert again.checkpoint.name == "update-000002"
    assert [row["update"] for row in again.rows()] == [1, 2]
    assert again.events() == [
        {
            "update": 3,
            "event": "checkpoint refused",
            "detail": "coordinator.json has 2 bytes instead of 34",
        }
    ]
    assert (folder.path / "checkpoints" / "refused-update-000003").exists()


def test_foreign_checkpoint_is_refused_with_the_reason(folder: RunFolder) -> None:
    for version in (1, 2):
        checkpoint(folder, version)
    again = RunFolder(folder.path, 2, lambda path: "was made with rank 8" if path.name.endswith("2") else None)
    assert again.checkpoint is not None
    assert again.checkpoint.name == "update-000001"
    assert [event["detail"] for event in again.events()] == ["was made with rank 8"]


def test_run_whose_checkpoints_are_all_bad_does_not_silently_start_anew(folder: RunFolder) -> None:
    checkpoint(folder, 1)
    with pytest.raises(BadInput, match="update-000001: was made with rank 8"):
        RunFolder(folder.path, 2, lambda path: "was made with rank 8")


def test_checkpoint_whose_link_was_not_written_counts(folder: RunFolder) -> None:
    """A kill between the renaming of a first checkpoint and its link."""
    checkpoint(folder, 1)
    (folder.path / "checkpoints" / "latest").unlink()
    assert RunFolder(folder.path, keep_last=2).checkpoint == folder.path / "checkpoints" / "update-000001"


def test_what_a_killed_process_left_half_done_goes(folder: RunFolder) -> None:
    checkpoint(folder, 1)
    unfinished = folder.path / "checkpoints" / ".update-000002.tmp"
    unfinished.mkdir()
    (folder.adapters / "policy-v1-r0").mkdir()
    (folder.adapters / ".policy-v2-r0.tmp").mkdir()
    (folder.path / ".ranks-1234").touch()
    folder.append_event(1, "learner died", "of old age")
    with (folder.path / "events.jsonl").open("a") as file:
        file.write('{"update": 1, "ev')
    again = RunFolder(folder.path, keep_last=2)
    assert not unfinished.exists()
    assert list(again.adapters.iterdir()) == []
    assert not list(folder.path.glob(".ranks*"))
    assert [event["event"] for event in again.events()] == ["learner died"]


def test_best_checkpoint_that_is_refused_is_no_longer_the_best(folder: RunFolder) -> None:
    checkpoint(folder, 1)
    checkpoint(folder, 2, validation=0.5)
    folder.mark_best(2)
    assert folder.best_score() == 0.5
    (folder.path / "checkpoints" / "update-000002" / "coordinator.json").write_text("{}")
    again = RunFolder(folder.path, keep_last=2)
    checkpoint(again, 2)
    assert again.best is None
    assert again.best_score() == -1.0


def test_checkpoint_without_a_score_is_no_best(folder: RunFolder) -> None:
    checkpoint(folder, 1)
    folder.mark_best(1)
    assert folder.best_score() == -1.0
