"""Which numbers of learner ranks a run can have; `make_plan` takes the one that makes an update shortest."""

from collections.abc import Sequence

from actors.runtime.placement import most_engines, most_ranks
from conf.errors import BadInput
from conf.schema import Config
from launch.hardware.machine import Machine


def possible_ranks(config: Config, machine: Machine) -> Sequence[int]:
    """Return the numbers of ranks to choose from, fewest first: as configured, or all that leave the engines a card.

    Raises BadInput if more ranks or engines are configured than the machine has cards or cores for.
    """
    engines, most_actors = config.rollout.actors, most_engines(machine.cores, machine.gpus)
    asked, most = config.learner.ranks, most_ranks(machine.cores, machine.gpus, engines)
    if engines is not None and engines > most_actors:
        raise _too_many(machine, f"rollout.actors={engines}", "the learner", most_actors)
    if asked is None:
        return range(1, most + 1) if machine.gpus else (1,)
    if asked > most:
        raise _too_many(machine, f"learner.ranks={asked}", "a rollout actor", most)
    return (asked,)


def _too_many(machine: Machine, what: str, other: str, most: int) -> BadInput:
    count = f"{machine.gpus} × {machine.name}" if machine.gpus else f"{len(machine.cores)} cores"
    least = f"each has a card, and {other} one too" if machine.gpus else "each has a core"
    return BadInput(f"{what}: too many for {count}, since {least}; use at most {most}, or leave it out")
