from dataclasses import replace
from pathlib import Path

import pytest

from actors.room import Free
from conf.errors import BadInput
from conf.load import load
from launch import room
from launch.machine import GIB, detect
from launch.plan import make_plan


def need(*settings: str) -> room.Room:
    config = load(["conf=quickstart", "model.dtype=float32", *settings])
    return room.room_of(make_plan(config, detect("cpu")))


def test_need_grows_with_rank_and_checkpoints_kept() -> None:
    small, large, many = need(), need("lora.rank=256"), need("checkpoint.keep_last=9")
    assert small.disk < large.disk
    assert small.disk < many.disk
    assert small.checkpoint == many.checkpoint < large.checkpoint


@pytest.mark.parametrize(
    ("scarce", "said"),
    [
        ("disk", "run.folder=runs: its disk has 100 MiB free and the run needs"),
        ("shared_memory", "/dev/shm has 100 MiB free and the run needs 512 MiB: enlarge it"),
        ("memory", "the host's memory has 100 MiB free and the run needs"),
    ],
)
def test_host_without_room_is_refused_with_numbers(scarce: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plenty = Free(disk=10**15, shared_memory=GIB, memory=10**15)
    monkeypatch.setattr(room, "measure", lambda folder: plenty)
    room.check_room(need(), Path("runs/mine"))
    monkeypatch.setattr(room, "measure", lambda folder: replace(plenty, **{scarce: 100 * 2**20}))
    with pytest.raises(BadInput, match=said):
        room.check_room(need(), Path("runs/mine"))
