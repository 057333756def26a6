"""The problems of a file, counted for a plan: all but what takes a tokenizer or the grader to see."""

from dataclasses import dataclass

from actors.messages import LeftOut
from conf.schema import Config
from rewards.problems.loading import EVAL_SEED, TRAIN_SEED, check_number, held_out, read_pairs

FILE = "file:"


@dataclass(frozen=True)
class Problems:
    """Numbers of problems to train on and held out, and of rows left out so far."""

    train: int
    heldout: int
    left_out: int


def count_problems(config: Config) -> Problems | None:
    """Count the problems of a run whose data is in a file; None for another source, which takes time or a network.

    Raises BadInput where a run would: for a file that is not there or cannot be read, or with too few problems in it.
    """
    data = config.data
    if not data.source.startswith(FILE):
        return None
    left_out: list[LeftOut] = []
    train = len(read_pairs("data.source", data.source, data, TRAIN_SEED, left_out))
    heldout = config.eval.problems
    if not data.eval_source:
        heldout = held_out(train, config)
        train -= heldout
    elif heldout and data.eval_source.startswith(FILE):
        heldout = min(heldout, len(read_pairs("data.eval_source", data.eval_source, data, EVAL_SEED, left_out)))
    train = min(train, data.size or train)
    check_number(train, heldout, config, left_out)
    return Problems(train, heldout, len(left_out))
