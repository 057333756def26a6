from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from microbudget_rl.actors.runtime.host_resources import DISK_MARGIN, MIB, HostFree, HostGuard, HostNeeds, amount
from microbudget_rl.actors.runtime.placement import Node
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.load import load
from microbudget_rl.launch.hardware.machine import GIB, detect
from microbudget_rl.launch.plan import host_needs
from microbudget_rl.launch.plan.plan import make_plan
from tests.launch.plan.plans import machine, plan

PLENTY = HostFree(disk=10**15, temporary=10**15, shared_memory=GIB, memory=10**15)
MINE = Path("runs/mine")
Free = Callable[[HostFree], None]


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Free:
    return lambda amounts: monkeypatch.setattr(host_needs, "measure", lambda folder: amounts)


def need(*settings: str) -> HostNeeds:
    config = load(["conf=quickstart", "model.dtype=float32", *settings])
    return host_needs.needs_of_run(make_plan(config, detect("cpu")))


@pytest.mark.parametrize("settings", [(), ("checkpoint.keep_last=1",), ("validation.every=5",)])
def test_run_that_may_start_may_write_all_its_checkpoints(settings: tuple[str, ...], free: Free):
    """On a disk with just enough room and no other user, the run may also resume, wherever it was interrupted."""
    whole = need(*settings)
    kept = whole.disk - whole.checkpoint - DISK_MARGIN
    guard = HostGuard(whole, 10**15)
    for held in range(0, kept + 1, kept // 8):
        for begun in (0, whole.checkpoint // 2, whole.checkpoint):
            left = HostFree(whole.disk - held - begun, 10**15, GIB, 10**15, begun, held)
            assert guard.look(left) == []
            free(left)
            host_needs.check_host(whole, MINE)


def test_the_checkpoint_of_a_warm_start_has_room_beside_the_others():
    plain, warm = ((each.disk - DISK_MARGIN) / each.checkpoint for each in (need(), need("warm_start.source=self")))
    assert warm == plain + 1


def test_old_checkpoints_make_room_only_for_their_successors(free: Free):
    free(replace(PLENTY, disk=10 * MIB, kept=10**15))
    with pytest.raises(BadInput, match=f"10 MiB .* {amount(need().checkpoint + DISK_MARGIN)}"):
        host_needs.check_host(need(), MINE)
    free(replace(PLENTY, disk=need().disk - 1000, begun=1000))
    host_needs.check_host(need(), MINE)
    with pytest.raises(BadInput, match="its disk has"):  # renamed, they stay
        host_needs.check_host(need(), MINE, overwrite=True)


def test_host_without_room_is_refused_with_numbers(free: Free, monkeypatch: pytest.MonkeyPatch):
    needed = replace(need(), shared_memory=512 * MIB)
    free(PLENTY)
    host_needs.check_host(needed, MINE)
    for scarce, said in {
        "disk": "run.folder=runs: .* 100 MiB",
        "temporary": "TMPDIR",
        "shared_memory": "/dev/shm .* 100 MiB .* 512 MiB",
        "memory": "memory .* 100 MiB",
    }.items():
        free(replace(PLENTY, **{scarce: 100 * MIB}))
        with pytest.raises(BadInput, match=said):
            host_needs.check_host(needed, MINE)
    free(PLENTY)
    for most, enough in ((-1, True), (1024, True), (1023, False)):
        monkeypatch.setattr("resource.getrlimit", lambda _, most=most: (256, most))
        with nullcontext() if enough else pytest.raises(BadInput, match=r"ulimit -n 1023.*raise it"):
            host_needs.check_host(needed, MINE)
    monkeypatch.setattr(host_needs, "SHARED_MEMORY", Path("/dev/nowhere"))
    with pytest.raises(BadInput, match="/dev/nowhere"):
        host_needs.check_host(needed, MINE)


def test_published_versions_take_room_for_temporary_files_or_on_a_cluster_in_the_run_folder():
    nodes = tuple(Node(str(number), tuple(range(16)), 1) for number in range(2))
    here, cluster = (
        host_needs.needs_of_run(plan("r8_instruct", replace(machine("A40", 2), nodes=each))) for each in ((), nodes)
    )
    assert here.temporary - cluster.temporary == cluster.disk - here.disk == cluster.checkpoint - here.checkpoint > 0


def test_only_ranks_on_several_gpus_share_memory():
    assert need().shared_memory == 0
    for ranks, shared in ((1, 0), (2, 512 * MIB)):
        made = plan("r8_instruct", machine("A40", 3), f"learner.world_size={ranks}")
        assert host_needs.needs_of_run(made).shared_memory == shared
