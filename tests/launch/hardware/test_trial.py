"""Two processes try to share memory: that of the CPU stands in for a GPU's."""

from dataclasses import replace

import pytest

from actors.runtime.placement import divide, place
from conf.errors import BadInput
from conf.load import load
from launch.hardware import trial
from launch.hardware.gpus import Gpu
from launch.hardware.trial import check_sharing, ipc_fault

GPU = Gpu("0", "NVIDIA A40", 45, 45)
BY_NAME = "import torch.multiprocessing as m; m.set_sharing_strategy('file_system')"


@pytest.mark.long
def test_memory_that_can_be_mapped_has_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTORCH_ALLOC_CONF", "expandable_segments:True")  # the user's, which no container lets map
    unset = "assert 'PYTORCH_ALLOC_CONF' not in os.environ"
    monkeypatch.setattr(trial, "HOLDER", BY_NAME + trial.HOLDER.replace('"cuda"', '"cpu"') + unset)
    assert ipc_fault(GPU) == ""
    monkeypatch.setattr(trial, "READER", "raise PermissionError('pidfd_getfd')")
    assert "pidfd_getfd" in ipc_fault(GPU)


def test_hosts_that_forbid_md5_have_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hashlib.md5", lambda: exec("raise ValueError('unsupported')"))
    assert "FIPS" in ipc_fault(GPU)


@pytest.mark.parametrize(("way", "refused"), [("on", True), ("auto", False)])
def test_sharing_that_is_asked_for_and_cannot_be_is_refused(way: str, refused: bool) -> None:
    config = load(["conf=r8_instruct", f"model.shared_weights={way}"])
    shared = divide(place(tuple(range(8)), 1), 0.3, 0.3, weights=0.2)
    check_sharing(config, shared, "")
    for placement, said in ((shared, "pidfd_getfd"), (replace(shared, weights=None), "")):
        if refused:
            with pytest.raises(BadInput, match=rf"model\.shared_weights=on: .*{said or 'share no GPU'}"):
                check_sharing(config, placement, said)
        else:
            check_sharing(config, placement, said)
