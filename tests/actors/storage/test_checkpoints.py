import asyncio
import threading
from pathlib import Path

import pytest

from actors.storage import checkpoints as module
from actors.storage.checkpoints import STATE, Checkpoints, write_state
from actors.storage.files import seal
from conf.errors import BadInput


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    (tmp_path / "checkpoints").mkdir()
    return Checkpoints(tmp_path / "checkpoints")


def save(
    checkpoints: Checkpoints, version: int, validation: float | None = None, keep_last: int = 2, passing: bool = False
) -> None:
    async def write() -> None:
        async with checkpoints.new(version, keep_last, passing) as folder:
            write_state(folder, {"version": version, "validation": validation})

    asyncio.run(write())


def names(checkpoints: Checkpoints) -> list[str]:
    return [checkpoint.name for checkpoint in checkpoints.all]


def good(_: Path) -> None:
    """What `recover` is told of a checkpoint that belongs to the run."""


def second_is_foreign(checkpoint: Path) -> str | None:
    return "was made with rank 8" if checkpoint.name.endswith("2") else None


def damage(checkpoints: Checkpoints, version: int) -> None:
    (checkpoints.folder / f"update-{version:06d}" / STATE).write_text("{}")


def test_latest_is_the_newest_whole_checkpoint_and_old_ones_go(checkpoints: Checkpoints) -> None:
    assert checkpoints.latest is None
    for version in (1, 2, 3):
        save(checkpoints, version)
    assert checkpoints.latest == checkpoints.folder.resolve() / "update-000003"
    assert names(checkpoints) == ["update-000002", "update-000003"]


def test_passing_checkpoint_takes_the_place_of_none_and_goes_with_the_next(checkpoints: Checkpoints) -> None:
    kept = []
    for version, passing in ((1, False), (2, False), (3, True), (4, True), (5, False), (6, True)):
        save(checkpoints, version, passing=passing)
        kept.append([int(name[-1]) for name in names(checkpoints)])
    assert kept == [[1], [1, 2], [1, 2, 3], [1, 2, 4], [2, 5], [2, 5, 6]]
    asyncio.run(checkpoints.prune(keep_last=2))
    assert [int(name[-1]) for name in names(checkpoints)] == [5, 6]


def test_folder_that_was_deleted_does_not_come_back(checkpoints: Checkpoints) -> None:
    checkpoints.folder.rmdir()
    with pytest.raises(FileNotFoundError):
        save(checkpoints, 1)
    assert not checkpoints.folder.exists()


def test_other_work_goes_on_while_a_checkpoint_is_hashed(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Signals, timeouts, heartbeats: gigabytes on a slow disk take minutes."""

    async def write() -> None:
        looked_at = threading.Event()

        def slow_seal(path: Path) -> None:
            assert looked_at.wait(timeout=240), "nothing else had its turn"
            seal(path)

        monkeypatch.setattr(module, "seal", slow_seal)
        asyncio.get_running_loop().call_later(0.01, looked_at.set)
        async with checkpoints.new(1, keep_last=2) as folder:
            write_state(folder, {})

    asyncio.run(write())
    assert checkpoints.latest is not None


def test_checkpoint_that_fails_half_way_is_not_seen(checkpoints: Checkpoints) -> None:
    save(checkpoints, 1)

    async def fail() -> None:
        async with checkpoints.new(2, keep_last=2) as folder:
            (folder / "learner.json").write_text("half")
            raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError):
        asyncio.run(fail())
    assert names(checkpoints) == ["update-000001"]
    assert len(checkpoints.unfinished) == 1
    checkpoints.recover(good)
    assert checkpoints.unfinished == []


def test_checkpoints_of_an_abandoned_future_do_not_push_out_the_newest(checkpoints: Checkpoints) -> None:
    save(checkpoints, 20, keep_last=1)
    save(checkpoints, 15, keep_last=1)
    assert checkpoints.latest is not None
    assert checkpoints.latest.name == "update-000015"
    assert names(checkpoints) == ["update-000015"]


def test_damaged_checkpoint_gives_way_to_the_one_before(checkpoints: Checkpoints) -> None:
    for version in (1, 2, 3):
        save(checkpoints, version)
    damage(checkpoints, 3)
    assert checkpoints.recover(good) == {3: "coordinator.json has 2 bytes instead of 34"}
    assert checkpoints.latest is not None
    assert checkpoints.latest.name == "update-000002"
    assert (checkpoints.folder / "refused-update-000003").exists()


def test_foreign_checkpoint_is_refused_with_the_reason(checkpoints: Checkpoints) -> None:
    for version in (1, 2):
        save(checkpoints, version)
    assert checkpoints.recover(second_is_foreign) == {2: "was made with rank 8"}
    assert checkpoints.latest is not None
    assert checkpoints.latest.name == "update-000001"


def test_run_whose_checkpoints_are_all_bad_never_silently_starts_anew(checkpoints: Checkpoints) -> None:
    save(checkpoints, 2)
    for _ in range(2):
        with pytest.raises(BadInput, match="update-000002: was made with rank 8"):
            checkpoints.recover(second_is_foreign)


def test_checkpoint_whose_link_was_not_written_counts(checkpoints: Checkpoints) -> None:
    """A kill between the renaming of a first checkpoint and its link."""
    save(checkpoints, 1)
    (checkpoints.folder / "latest").unlink()
    assert checkpoints.recover(good) == {}
    assert checkpoints.latest == checkpoints.folder / "update-000001"


def test_best_checkpoint_is_kept(checkpoints: Checkpoints) -> None:
    save(checkpoints, 1, validation=0.5, keep_last=1)
    checkpoints.mark_best(1)
    save(checkpoints, 2, keep_last=1)
    save(checkpoints, 3, keep_last=1)
    assert names(checkpoints) == ["update-000001", "update-000003"]
    assert checkpoints.best_score == 0.5


def test_best_checkpoint_that_is_refused_is_no_longer_the_best(checkpoints: Checkpoints) -> None:
    save(checkpoints, 1)
    save(checkpoints, 2, validation=0.5)
    checkpoints.mark_best(2)
    damage(checkpoints, 2)
    checkpoints.recover(good)
    save(checkpoints, 2)
    assert checkpoints.best is None
    assert checkpoints.best_score == -1.0


def test_checkpoint_without_a_score_is_no_best(checkpoints: Checkpoints) -> None:
    save(checkpoints, 1)
    checkpoints.mark_best(1)
    assert checkpoints.best_score == -1.0


def test_return_forgets_what_came_after(checkpoints: Checkpoints) -> None:
    for version in (1, 2, 3):
        save(checkpoints, version, validation=version / 10, keep_last=3)
    checkpoints.mark_best(3)
    assert [checkpoints.newest_until(version) for version in (0, 1, 2, 9)] == [1, 1, 2, 3]
    checkpoints.return_to(2)
    assert (checkpoints.latest and checkpoints.latest.name, checkpoints.best) == ("update-000002", None)
    checkpoints.return_to(0)
    assert (checkpoints.all, checkpoints.latest, checkpoints.newest_until(5)) == ([], None, 0)
