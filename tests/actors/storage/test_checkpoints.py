import asyncio
import os
from pathlib import Path
from shutil import copytree, rmtree

import pytest

from microbudget_rl.actors.storage.checkpoints import STATE, Checkpoints, write_state
from microbudget_rl.actors.storage.documents import CoordinatorState
from microbudget_rl.actors.storage.files import MANIFEST
from microbudget_rl.actors.storage.folders import mark, read_mark
from microbudget_rl.conf.errors import BadInput


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    (tmp_path / "checkpoints").mkdir()
    return Checkpoints(tmp_path / "checkpoints")


def save(checkpoints: Checkpoints, version: int, keep_last: int = 2, passing: bool = False) -> None:
    async def write() -> None:
        async with checkpoints.new(version, keep_last, passing) as folder:
            write_state(folder, CoordinatorState(version=version))

    asyncio.run(write())


def kept(checkpoints: Checkpoints) -> list[int]:
    return [int(checkpoint.name[-6:]) for checkpoint in checkpoints.all]


def latest(checkpoints: Checkpoints) -> str:
    return checkpoints.latest.name if checkpoints.latest else ""


def good(_: Path) -> None: ...


def second_is_foreign(checkpoint: Path) -> str | None:
    return "was made with rank 8" if checkpoint.name.endswith("2") else None


def damage(checkpoints: Checkpoints, version: int) -> None:
    (checkpoints.folder / f"update-{version:06d}" / STATE).write_text("{}")


def test_passing_checkpoint_takes_the_place_of_none_and_goes_with_the_next(checkpoints: Checkpoints):
    found = []
    for version, passing in ((1, False), (2, False), (3, True), (4, True), (5, False), (6, True)):
        save(checkpoints, version, passing=passing)
        found.append(kept(checkpoints))
    assert found == [[1], [1, 2], [1, 2, 3], [1, 2, 4], [2, 5], [2, 5, 6]]
    asyncio.run(checkpoints.prune(keep_last=2))
    assert kept(checkpoints) == [5, 6]


def test_checkpoint_for_a_way_back_stays_until_another_takes_its_place(checkpoints: Checkpoints):
    for version in range(1, 5):
        save(checkpoints, version, keep_last=1)
        checkpoints.way_back = min(version, 2)
    assert kept(checkpoints) == [2, 4]
    checkpoints.way_back = 4
    save(checkpoints, 5, keep_last=1)
    assert kept(checkpoints) == [4, 5]


def test_copy_that_a_user_made_counts_as_no_checkpoint(checkpoints: Checkpoints):
    save(checkpoints, 1)
    copy = copytree(checkpoints.folder / "update-000001", checkpoints.folder / "update-000001-good")
    for version in (2, 3, 4):
        save(checkpoints, version)
    assert kept(checkpoints) == [3, 4]
    assert (copy / STATE).exists()
    (checkpoints.folder / "best").symlink_to(copy.name)
    assert (checkpoints.best, checkpoints.newest_until(3)) == (None, 3)
    checkpoints.recover(good)
    assert (latest(checkpoints), (copy / STATE).exists()) == ("update-000004", True)


def test_checkpoint_that_fails_half_way_is_not_seen(checkpoints: Checkpoints):
    save(checkpoints, 1)

    async def fail() -> None:
        async with checkpoints.new(2, keep_last=2) as folder:
            (folder / "learner.json").write_text("half")
            raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError):
        asyncio.run(fail())
    assert (kept(checkpoints), len(checkpoints.unfinished)) == ([1], 1)
    checkpoints.recover(good)
    assert checkpoints.unfinished == []


def test_checkpoints_of_an_abandoned_future_do_not_push_out_the_newest(checkpoints: Checkpoints):
    save(checkpoints, 20, keep_last=1)
    save(checkpoints, 15, keep_last=1)
    assert (latest(checkpoints), kept(checkpoints)) == ("update-000015", [15])


def test_damaged_checkpoint_gives_way_to_the_one_before(checkpoints: Checkpoints):
    for version in (1, 2, 3):
        save(checkpoints, version)
    damage(checkpoints, 3)
    ((version, reason),) = checkpoints.recover(good).items()
    assert (version, STATE in reason, latest(checkpoints)) == (3, True, "update-000002")
    assert (checkpoints.folder / "refused-update-000003").exists()


def test_foreign_checkpoint_is_refused_and_a_run_without_another_never_starts_anew(checkpoints: Checkpoints):
    save(checkpoints, 1)
    save(checkpoints, 2)
    assert checkpoints.recover(second_is_foreign) == {2: "was made with rank 8"}
    assert latest(checkpoints) == "update-000001"
    checkpoints.return_to(0)
    save(checkpoints, 2)
    for _ in range(2):
        with pytest.raises(BadInput, match="update-000002: was made with rank 8"):
            checkpoints.recover(second_is_foreign)


def test_checkpoint_whose_link_was_not_written_counts(checkpoints: Checkpoints):
    """After a kill between the renaming of a first checkpoint and its link. It does not stay temporary."""
    save(checkpoints, 1)
    mark(checkpoints.path_of(1), "temporary")
    (checkpoints.folder / "latest").unlink()
    assert checkpoints.recover(good) == {}
    assert (latest(checkpoints), read_mark(checkpoints.path_of(1))) == ("update-000001", {})


@pytest.mark.parametrize("first", [1, 999_999])
def test_return_forgets_what_came_after(checkpoints: Checkpoints, first: int):
    """Also where a version has a digit more than the one before."""
    last = first + 2
    for version in range(first, last + 1):
        save(checkpoints, version, keep_last=3)
    checkpoints.mark_best(last)
    assert checkpoints.recover(good) == {}
    assert checkpoints.result == checkpoints.best == checkpoints.latest == checkpoints.path_of(last)
    versions = (first - 1, first, last - 1, last + 6)
    assert [checkpoints.newest_until(version) for version in versions] == [first, first, last - 1, last]
    checkpoints.return_to(last - 1)
    assert (checkpoints.latest, checkpoints.best) == (checkpoints.path_of(last - 1), None)
    assert checkpoints.result == checkpoints.latest
    checkpoints.return_to(0)
    assert (checkpoints.all, checkpoints.latest, checkpoints.newest_until(5)) == ([], None, 0)


def test_version_0_is_replaced_by_itself_and_never_pruned(checkpoints: Checkpoints):
    for version in (0, 0, 1, 2, 3):
        save(checkpoints, version, keep_last=1)
    assert kept(checkpoints) == [0, 3]
    checkpoints.return_to(0)
    assert (latest(checkpoints), kept(checkpoints)) == ("update-000000", [0])


def test_kill_while_a_checkpoint_is_replaced_leaves_the_newest(checkpoints: Checkpoints):
    """Between the two renames. The old one is whole too; a half-written one does not count."""
    save(checkpoints, 0)
    for age in (20, 10, 30, 0):
        left = checkpoints.folder / f".update-000000.0123456{age // 10}.tmp"
        copytree(checkpoints.path_of(0), left)
        (left / STATE).write_text((left / STATE).read_text() if age else "{")
        os.utime(left / MANIFEST, (1e9 - age, 1e9 - age))
    rmtree(checkpoints.path_of(0))
    assert checkpoints.recover(good) == {}
    assert (checkpoints.path_of(0) / MANIFEST).stat().st_mtime == 1e9 - 10
    assert (latest(checkpoints), checkpoints.unfinished) == ("update-000000", [])


def test_latest_is_there_while_the_checkpoint_before_is_deleted(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
):
    seen: list[str] = []
    monkeypatch.setattr("microbudget_rl.actors.storage.checkpoints.delete", lambda *_: seen.append(latest(checkpoints)))
    save(checkpoints, 0)
    save(checkpoints, 0)
    assert {*seen} == {"update-000000"}
