"""Whether the host has enough disk, shared memory and memory for a run, before anything expensive starts."""

import resource
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from microbudget_rl.actors.models.sizes import (
    DTYPE_BYTES,
    SYNTHETIC_ADAPTERS,
    adapter_slots,
    checkpoint_bytes,
    lora_parameters,
)
from microbudget_rl.actors.runtime.host_resources import (
    DISK_MARGIN,
    MIB,
    SHARED_MEMORY,
    HostNeeds,
    amount,
    in_memory,
    measure,
)
from microbudget_rl.actors.runtime.ray_session import OBJECT_STORE_BYTES
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.launch.plan.memory import OTHER_PROCESSES, Fit
from microbudget_rl.launch.plan.plan import Plan

SESSION_BYTES = 512 * MIB
"""Disk for the logs of Ray's session, in the folder for temporary files."""

OPEN_FILES = 1024
"""Open files that a process needs, the least that systems allow. Ray raises its own limit, and advises 8192."""


@dataclass(frozen=True)
class Resource:
    """A resource of the host. free, needed: bytes. remedy: what to do if there is too little."""

    name: str
    free: int
    needed: int
    remedy: str


def needs_of_run(plan: Plan) -> HostNeeds:
    """Return the needs of a planned run on its host."""
    config = plan.config
    trained = lora_parameters(plan.shape, config.lora.rank, config.lora.target_modules)
    adapter = trained * DTYPE_BYTES[config.model.dtype]
    checkpoint = trained * checkpoint_bytes(config) + adapter
    # adapters served or within the staleness limit, the synthetic ones, and the one being written
    versions = max(adapter_slots(config), config.learner.max_staleness + 1) + SYNTHETIC_ADAPTERS + 1
    shared, per_process = (versions * adapter, 0) if plan.machine.nodes else (0, versions * adapter)
    temporary = SESSION_BYTES + per_process
    checkpoints = config.checkpoint.keep_last + 1  # one in passing
    checkpoints += config.validation_problems > 0  # the best may be old
    checkpoints += bool(config.warm_start.source) + config.guard.goes_back  # that of version 0, and of the way back
    several = plan.machine.gpus and len(plan.placement.learners) > 1  # Ray's object store can do without /dev/shm
    return HostNeeds(
        disk=(checkpoints + 1) * checkpoint + shared + DISK_MARGIN,
        checkpoint=checkpoint + shared,
        temporary=temporary,
        shared_memory=2 * OBJECT_STORE_BYTES if several else 0,
        memory=int(plan.needed("host")) + temporary * in_memory(Path(tempfile.gettempdir())),
    )


def needs_of_evaluation(engines: Fit) -> HostNeeds:
    """Return the needs on the host of an evaluation, which has engines and no learner."""
    return HostNeeds(
        disk=DISK_MARGIN,
        checkpoint=0,
        temporary=SESSION_BYTES,
        shared_memory=0,
        memory=int(engines.host_bytes + OBJECT_STORE_BYTES + OTHER_PROCESSES),
    )


def resources(need: HostNeeds, folder: Path, overwrite: bool = False) -> Iterator[Resource]:
    """Yield every resource that a run needs, with free and needed bytes. folder, overwrite: as for `check_host`."""
    if not SHARED_MEMORY.is_dir():
        raise BadInput(f"there is no {SHARED_MEMORY}, which Ray's processes need: mount it, or run where it is")
    free, temporary = measure(folder), Path(tempfile.gettempdir())
    retained = min(free.kept, need.disk - need.checkpoint - DISK_MARGIN)  # more old files make no room for new ones
    disk = need.disk - (0 if overwrite else free.begun + retained)
    stored = 0 if free.shared_memory >= OBJECT_STORE_BYTES else OBJECT_STORE_BYTES  # Ray then stores there
    place, larger = f"run.folder={folder.parent}: its disk", "enlarge it; for a container, docker run --shm-size=2g"
    yield Resource(place, free.disk, disk, "make room or name a folder on another disk")
    yield Resource(f"{temporary}", free.temporary, need.temporary + stored, "make room or set TMPDIR to another disk")
    yield Resource("/dev/shm", free.shared_memory, need.shared_memory, larger)
    yield Resource("the host's memory", free.memory, need.memory, "end other programs here, or take a larger machine")


def check_host(need: HostNeeds, folder: Path, overwrite: bool = False) -> None:
    """Raise BadInput for the first resource of which the host has too little, or for a low limit of open files.

    folder: the run's. Its checkpoints count as available space, unless `overwrite` will rename them.
    """
    for each in resources(need, folder, overwrite):
        if each.free < each.needed:
            numbers = f"{amount(each.free)} free and the run needs {amount(each.needed)}"
            raise BadInput(f"{each.name} has {numbers}: {each.remedy}")
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if 0 <= most < OPEN_FILES:
        raise BadInput(f"ulimit -n {most}: a run needs {OPEN_FILES} open files; raise it, better to 8192")
