from dataclasses import replace
from pathlib import Path

import pytest

from actors.runtime.host_resources import DISK_MARGIN, MIB, HostFree, HostGuard, HostNeeds, amount
from actors.runtime.placement import Node, place
from conf.errors import BadInput
from conf.load import load
from launch.hardware.machine import GIB, detect
from launch.plan import host_needs
from launch.plan.plan import make_plan
from tests.launch.plan.plans import machine, plan

PLENTY = HostFree(disk=10**15, temporary=10**15, shared_memory=GIB, memory=10**15)


def need(*settings: str) -> HostNeeds:
    config = load(["conf=quickstart", "model.dtype=float32", *settings])
    return host_needs.needs_of_run(make_plan(config, detect("cpu")))


@pytest.mark.parametrize("settings", [(), ("checkpoint.keep_last=1",), ("validation.every=5",)])
def test_run_that_may_start_may_write_all_its_checkpoints(
    settings: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a disk with just enough room and no other user, the run may also resume, wherever it was interrupted."""
    whole = need(*settings)
    kept = whole.disk - whole.checkpoint - DISK_MARGIN
    guard = HostGuard(whole, 10**15)
    for held in range(0, kept + 1, kept // 8):
        for begun in (0, whole.checkpoint // 2, whole.checkpoint):
            left = HostFree(whole.disk - held - begun, 10**15, GIB, 10**15, begun, held)
            assert guard.look(left) == []
            monkeypatch.setattr(host_needs, "measure", lambda folder, left=left: left)
            host_needs.check_host(whole, Path("runs/mine"))


def test_the_checkpoint_of_a_warm_start_has_room_beside_the_others() -> None:
    plain, warm = ((each.disk - DISK_MARGIN) / each.checkpoint for each in (need(), need("warm_start.source=self")))
    assert warm == plain + 1


def test_checkpoints_beyond_those_kept_make_no_room_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_needs, "measure", lambda folder: replace(PLENTY, disk=10 * MIB, kept=10**15))
    with pytest.raises(BadInput, match=f"10 MiB .* {amount(need().checkpoint + DISK_MARGIN)}"):
        host_needs.check_host(need(), Path("runs/mine"))


def test_checkpoints_that_are_renamed_make_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_needs, "measure", lambda folder: replace(PLENTY, disk=need().disk - 1000, begun=1000))
    host_needs.check_host(need(), tmp_path)
    with pytest.raises(BadInput, match="its disk has"):
        host_needs.check_host(need(), tmp_path, overwrite=True)


def test_host_without_room_is_refused_with_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = replace(need(), shared_memory=512 * MIB)
    monkeypatch.setattr(host_needs, "measure", lambda folder: PLENTY)
    host_needs.check_host(needed, Path("runs/mine"))
    for scarce, said in {
        "disk": "run.folder=runs: .* 100 MiB",
        "shared_memory": "/dev/shm .* 100 MiB .* 512 MiB",
        "memory": "memory .* 100 MiB",
    }.items():
        monkeypatch.setattr(host_needs, "measure", lambda folder, key=scarce: replace(PLENTY, **{key: 100 * MIB}))
        with pytest.raises(BadInput, match=said):
            host_needs.check_host(needed, Path("runs/mine"))
    monkeypatch.setattr(host_needs, "SHARED_MEMORY", Path("/dev/nowhere"))
    with pytest.raises(BadInput, match="/dev/nowhere"):
        host_needs.check_host(needed, Path("runs/mine"))


def test_published_versions_take_room_for_temporary_files_or_on_a_cluster_in_the_run_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nodes = tuple(Node(str(number), tuple(range(16)), 1) for number in range(2))
    here, cluster = (
        host_needs.needs_of_run(plan("r8_instruct", replace(machine("A40", 2), nodes=each))) for each in ((), nodes)
    )
    assert here.temporary - cluster.temporary == cluster.disk - here.disk == cluster.checkpoint - here.checkpoint > 0
    monkeypatch.setattr(host_needs, "measure", lambda folder: replace(PLENTY, temporary=here.temporary - 1))
    host_needs.check_host(cluster, Path("runs/mine"))
    with pytest.raises(BadInput, match="TMPDIR"):
        host_needs.check_host(here, Path("runs/mine"))


def test_too_few_open_files_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_needs, "measure", lambda folder: PLENTY)
    for most in (1024, -1):
        monkeypatch.setattr("resource.getrlimit", lambda _, most=most: (256, most))
        host_needs.check_host(need(), Path("runs/mine"))
    monkeypatch.setattr("resource.getrlimit", lambda _: (256, 1023))
    with pytest.raises(BadInput, match=r"ulimit -n 1023.*raise it"):
        host_needs.check_host(need(), Path("runs/mine"))


def test_only_ranks_on_several_gpus_share_memory() -> None:
    config = load(["conf=quickstart", "model.dtype=float32"])
    for gpus, shared in ((0, 0), (1, 0), (2, 0), (3, 512 * MIB)):
        placement = place(cores=(0, 1), gpus=gpus, ranks=max(1, gpus - 1))
        assert host_needs.needs_of_evaluation(config, config.model.shape, placement).shared_memory == shared
