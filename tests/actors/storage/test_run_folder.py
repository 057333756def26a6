import asyncio
from pathlib import Path

import pytest

from actors.messages import AdapterRef
from actors.storage.checkpoints import STATE, write_state
from actors.storage.run_folder import RunFolder
from tests.fakes import make_group


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return reopen(tmp_path)


def reopen(path: Path) -> RunFolder:
    """As the next process of the run does."""
    folder = RunFolder(path)
    folder.recover()
    return folder


def save(folder: RunFolder, version: int) -> None:
    async def write() -> None:
        async with folder.checkpoints.new(version, keep_last=2) as path:
            write_state(path, {"version": version})

    asyncio.run(write())


def test_making_one_changes_nothing_on_disk(tmp_path: Path) -> None:
    (tmp_path / "adapters" / "policy-v1-r0").mkdir(parents=True)
    RunFolder(tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["adapters", "policy-v1-r0"]


def test_rows_after_the_newest_checkpoint_are_cut_at_a_resume(folder: RunFolder) -> None:
    for update in (1, 2, 3):
        folder.append_metrics(update, {"reward/mean": 0.5})
    save(folder, 2)
    assert [row["update"] for row in reopen(folder.path).rows()] == [1, 2]


def test_row_that_a_crash_cut_off_is_dropped(folder: RunFolder) -> None:
    folder.append_metrics(1, {"reward/mean": 0.5})
    save(folder, 1)
    with folder.metrics.open("a") as file:
        file.write('{"update": 1, "rew')
    reopen(folder.path)
    assert len(folder.metrics.read_text().splitlines()) == 1


def test_incarnations_are_never_given_twice(folder: RunFolder) -> None:
    assert [folder.next_incarnation(), reopen(folder.path).next_incarnation()] == [1, 2]


def test_time_spent_survives_the_process(folder: RunFolder) -> None:
    assert folder.spent == 0.0
    folder.write_spent(12.5, {})
    assert reopen(folder.path).spent == 12.5


def test_only_the_versions_in_use_stay(folder: RunFolder) -> None:
    adapters = [AdapterRef(version, 0, str(folder.adapters / f"policy-v{version}-r0")) for version in range(3)]
    for adapter in adapters:
        Path(adapter.path).mkdir()
    folder.drop_adapters(keep=(adapters[1], adapters[2]))
    assert sorted(path.name for path in folder.adapters.iterdir()) == ["policy-v1-r0", "policy-v2-r0"]


def test_samples_say_what_was_asked_said_and_earned(folder: RunFolder) -> None:
    folder.write_samples("update-000001", (make_group(0, version=3),))
    assert folder.sampled_updates() == ["update-000001"]
    assert [(row["version"], row["gold"], row["reward"], row["status"]) for row in folder.samples("update-000001")] == [
        (3, "1", 1.0, "correct"),
        (3, "1", 0.0, "wrong"),
    ]


def test_rows_of_a_damaged_checkpoint_go_and_an_event_says_so(folder: RunFolder) -> None:
    for version in (1, 2, 3):
        folder.append_metrics(version, {"reward/mean": 0.5})
        save(folder, version)
    (folder.checkpoints.folder / "update-000003" / STATE).write_text("{}")
    again = reopen(folder.path)
    assert [row["update"] for row in again.rows()] == [1, 2]
    assert again.events() == [
        {"update": 3, "event": "checkpoint refused", "detail": "coordinator.json has 2 bytes instead of 14"}
    ]


def test_what_a_killed_process_left_half_done_goes(folder: RunFolder) -> None:
    save(folder, 1)
    (folder.adapters / "policy-v1-r0").mkdir()
    (folder.adapters / ".policy-v2-r0.tmp").mkdir()
    folder.append_event(1, "learner died", "of old age")
    with (folder.path / "events.jsonl").open("a") as file:
        file.write('{"update": 1, "ev')
    again = reopen(folder.path)
    assert list(again.adapters.iterdir()) == []
    assert [event["event"] for event in again.events()] == ["learner died"]
    again.append_event(2, "learner died", "again")
    assert len(again.events()) == 2


def test_half_an_event_goes_before_the_next_is_written(folder: RunFolder) -> None:
    folder.append_event(1, "learner died", "of old age")
    with (folder.path / "events.jsonl").open("a") as file:
        file.write('{"update": 1, "ev')
    next_process = RunFolder(folder.path)
    next_process.drop_half_event()
    next_process.append_event(1, "mps", "before it has recovered")
    assert [event["event"] for event in next_process.events()] == ["learner died", "mps"]


def test_events_are_a_file_from_the_start(folder: RunFolder) -> None:
    assert (folder.path / "events.jsonl").read_text() == ""


def test_adapters_that_nobody_serves_any_more_go(folder: RunFolder, tmp_path: Path) -> None:
    (folder.adapters / "synthetic-1").mkdir()
    folder.drop_adapters(keep=())
    assert list(folder.adapters.iterdir()) == []
    RunFolder(tmp_path / "none").drop_adapters(keep=())
