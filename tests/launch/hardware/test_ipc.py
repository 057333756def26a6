"""Two processes try to share memory: that of the CPU stands in for a GPU's."""

from dataclasses import replace

import pytest

from actors.runtime.placement import Placement, divide, place
from conf.errors import BadInput
from conf.load import load
from launch.hardware import ipc
from launch.hardware.ipc import not_shared

ASKED = {way: load(["conf=r8_instruct", f"model.shared_weights={way}"]) for way in ("auto", "on")}
BY_NAME = "import torch.multiprocessing as m; m.set_sharing_strategy('file_system')"


@pytest.fixture
def shared() -> Placement:
    return divide(place(tuple(range(8)), 1), 0.3, 0.3, weights=0.2)


def test_memory_that_can_be_mapped_is_shared(shared: Placement, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ipc, "HOLDER", BY_NAME + ipc.HOLDER.replace("cuda", "cpu"))
    assert not_shared(ASKED["on"], shared) == ""
    monkeypatch.setattr(ipc, "READER", "raise PermissionError('pidfd_getfd')")
    assert "pidfd_getfd" in not_shared(ASKED["auto"], shared)
    with pytest.raises(BadInput, match=r"model\.shared_weights=on: .*pidfd_getfd"):
        not_shared(ASKED["on"], shared)


def test_nothing_is_tried_where_nothing_is_shared(shared: Placement, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ipc, "HOLDER", "raise MemoryError")
    alone = replace(shared, weights=None)
    assert not_shared(ASKED["auto"], alone) == ""
    with pytest.raises(BadInput, match="share no GPU"):
        not_shared(ASKED["on"], alone)
