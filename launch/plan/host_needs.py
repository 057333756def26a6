"""Whether the host has room for a run, before anything expensive starts."""

import tempfile
from pathlib import Path

from actors.runtime.host_resources import DISK_MARGIN, MIB, HostNeeds, amount, free_disk, measure, size
from actors.runtime.placement import Placement
from conf.errors import BadInput
from conf.schema import Config, ShapeConfig
from conf.sizes import ADAPTER_SLOTS, CHECKPOINT_BYTES, DTYPE_BYTES, lora_parameters, padded_rank, parameters
from launch.plan.machine import GIB
from launch.plan.memory import ENGINE_PROCESSES, OTHER_PROCESSES, WORKER_PROCESS
from launch.plan.plan import Plan

OBJECT_STORE_BYTES = 512 * MIB
"""Ray's. Groups and batches are a few megabytes; its default would take a third of the host's memory."""

SESSION_BYTES = 512 * MIB
"""Logs of Ray's session, in the folder for temporary files."""


def room_of(plan: Plan) -> HostNeeds:
    """What a run by this plan needs of its host."""
    config = plan.config
    trained = lora_parameters(plan.shape, config.lora.rank, config.lora.target_modules)
    adapter = trained * DTYPE_BYTES[config.model.dtype]
    checkpoint = trained * CHECKPOINT_BYTES + adapter
    published = (2 * ADAPTER_SLOTS + 1) * adapter  # those served, synthetic ones, and the one being written
    kept = config.checkpoint.keep_last + (config.validation.every > 0)  # the best one may be an old one
    return HostNeeds(
        disk=(kept + 1) * checkpoint + published + DISK_MARGIN,
        checkpoint=checkpoint + published,
        shared_memory=shared_memory(plan.placement),
        memory=int(plan.needed("host")),
    )


def room_of_evaluation(config: Config, shape: ShapeConfig, placement: Placement) -> HostNeeds:
    """What an evaluation needs of its host: one engine and no learner."""
    width = DTYPE_BYTES[config.model.dtype]
    slot = lora_parameters(shape, padded_rank(config.lora.rank), config.lora.target_modules) * width
    engine = parameters(shape) * width + ADAPTER_SLOTS * slot + config.rollout.kv_cache_gib * GIB
    processes = OTHER_PROCESSES + (ENGINE_PROCESSES + WORKER_PROCESS) * len(placement.rollouts)
    return HostNeeds(
        disk=DISK_MARGIN,
        checkpoint=0,
        shared_memory=shared_memory(placement),
        memory=int(processes + (engine if placement.device == "cpu" else 0)),
    )


def shared_memory(placement: Placement) -> int:
    """Bytes of /dev/shm that vLLM's processes on the CPU, or several ranks on cards, need beside Ray's object store,
    which can do without.
    """
    return 0 if placement.device == "cuda" and len(placement.learners) <= 1 else OBJECT_STORE_BYTES


def check_room(need: HostNeeds, folder: Path, overwrite: bool = False) -> None:
    """Raise BadInput for the first thing that the host has too little of. folder: of the run, which holds a part of
    what it needs already, or with overwrite is going to be emptied.
    """
    free, temporary = measure(folder), Path(tempfile.gettempdir())
    kept = min(free.kept, need.disk - need.checkpoint - DISK_MARGIN)  # more than that makes no room for the next one
    disk = need.disk - (size(folder) if overwrite else free.begun + kept)
    stored = 0 if free.shared_memory >= OBJECT_STORE_BYTES else OBJECT_STORE_BYTES  # Ray puts its store there then
    session = SESSION_BYTES + stored
    complaint = "{what} has {free} free and the run needs {need}: {remedy}"
    for what, has, needs, remedy in (
        (f"run.folder={folder.parent}: its disk", free.disk, disk, "make room or name a folder on another disk"),
        (f"{temporary}", free_disk(temporary), session, "make room or set TMPDIR to another disk"),
        ("/dev/shm", free.shared_memory, need.shared_memory, "enlarge it; for a container, docker run --shm-size=2g"),
        ("the host's memory", free.memory, need.memory, "end what else runs here, or take a larger machine"),
    ):
        if has < needs:
            raise BadInput(complaint.format(what=what, free=amount(has), need=amount(needs), remedy=remedy))
