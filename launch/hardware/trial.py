"""Tries what the GPUs of this machine allow before a run is planned: NVIDIA's MPS, and mapping another's memory."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from conf.schema import Config
from launch.hardware import ipc, mps
from launch.hardware.machine import Machine


@dataclass(frozen=True)
class Trial:
    """What works on a machine.

    machine: the machine with these facts.
    no_mps, no_ipc: why it does not work; empty if it does, or if it was not tried.
    end_mps: ends the service, which otherwise runs as long as the context of `tried`.
    """

    machine: Machine
    no_mps: str
    no_ipc: str
    end_mps: Callable[[], None]


@contextlib.contextmanager
def tried(config: Config, machine: Machine) -> Iterator[Trial]:
    """Try what a run with these settings may use on this machine, and keep a service of MPS that works running for all
    processes started within the context. A cluster's GPUs are not tried, nor is one that is not here.
    """
    gpus = () if machine.nodes else machine.cards
    no_mps = no_ipc = ""
    with contextlib.ExitStack() as service:
        overlap = config.run.nvidia_mps == "auto" and config.learner.max_staleness > 0
        if gpus and machine.mps and (config.run.mps or overlap):
            no_mps = service.enter_context(mps.running(gpus))
            if no_mps:
                service.close()
        if len(gpus) == 1 and machine.ipc and config.model.shared_weights != "off":
            no_ipc = ipc.fault(gpus[0])
        facts = replace(machine, mps=machine.mps and not no_mps, ipc=machine.ipc and not no_ipc, tried=True)
        yield Trial(facts, no_mps, no_ipc, service.close)
