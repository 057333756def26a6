"""Which responses a warm start learns, and in which order: pure functions."""

import random
from collections.abc import Sequence
from math import ceil

from actors.messages import Demonstration, Group, Status
from conf.schema.warm_start import WarmStartConfig

TRUNCATED = "truncated"


def statuses(group: Group) -> list[str]:
    """Return the status of each response of a verified group, TRUNCATED for one that has no end."""
    pairs = zip(group.samples, group.rewards, strict=True)
    return [TRUNCATED if sample.truncated else str(reward.status) for sample, reward in pairs]


def worth_learning(group: Group, settings: WarmStartConfig, seed: int) -> list[list[int]]:
    """Return the token ids of a group's responses to learn: the right ones, each once, chosen by `settings`."""
    judged = zip(group.samples, statuses(group), group.rewards, strict=True)
    earned = {tuple(each.token_ids): reward.total for each, status, reward in judged if status == Status.CORRECT}
    right = list(earned)
    if settings.choice == "random":
        random.Random(f"{seed}/warm_start/{group.problem.id}").shuffle(right)
    else:
        right.sort(key=lambda ids: (-earned[ids], len(ids)))
    return [list(ids) for ids in right[: settings.per_problem]]


def updates_per_pass(count: int, per_update: int) -> int:
    return ceil(count / per_update)


def lesson(given: Sequence[Demonstration], per_update: int, seed: int, update: int) -> tuple[Demonstration, ...]:
    """Return the demonstrations of an update, counted from 0. Each pass has its own permutation, in equal parts."""
    count = len(given)
    parts = updates_per_pass(count, per_update)
    number, part = divmod(update, parts)
    order = random.Random(f"{seed}/warm_start/{number}").sample(range(count), count)
    return tuple(given[place] for place in order[count * part // parts : count * (part + 1) // parts])
