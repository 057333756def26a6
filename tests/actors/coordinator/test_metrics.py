import pytest

from microbudget_rl.actors.coordinator.budget import Budget
from microbudget_rl.actors.coordinator.ledger import Ledger
from microbudget_rl.actors.coordinator.metrics import RunState, describe_batch, unanimous_errors
from microbudget_rl.actors.messages import Batch, Group, Problem, Reward, Sample, Status, Verdict
from microbudget_rl.actors.storage.documents import PolicyScores
from microbudget_rl.conf.load import load
from tests.actors.coordinator.test_budget import HandClock


def group(source: str, *statuses: Status, length: int = 1) -> Group:
    samples = tuple(Sample([1] * length, (), "", "stop") for _ in statuses)
    scores = [(float(status is Status.CORRECT), status) for status in statuses]
    rewards = tuple(Reward(score, {"accuracy": score}, Verdict(score, status, None, 0.0)) for score, status in scores)
    return Group(0, Problem("", "", (), "", source=source), None, samples, rewards)


def test_each_source_of_a_mixture_has_its_own_figures():
    mixed = group("a", Status.CORRECT, Status.WRONG), group("a", Status.UNPARSABLE, Status.TIMEOUT, length=3)
    found = describe_batch(Batch(0, (*mixed, group("b", Status.CORRECT, Status.CORRECT))))
    a = {"groups": 2, "pass_rate": 1 / 3, "mean_length": 2, "zero_variance": 0.5}
    a |= {"correct": 1, "wrong": 1, "unparsable": 1, "timeout": 1, "crash": 0}
    assert {key.removeprefix("source/a/"): found[key] for key in found if key.startswith("source/a/")} == a
    assert (found["source/b/pass_rate"], found["source/b/zero_variance"]) == (1, 1)
    assert not any(key.startswith("source/") for key in describe_batch(Batch(0, (group("", Status.WRONG),))))


@pytest.mark.parametrize(
    ("accuracy", "shown"), [(1, {"Base model: held-out", "Base model: aime"}), (0, {"Base model: aime"})]
)
def test_heldout_pass_at_1_is_only_shown_where_answers_are_weighed(accuracy: int, shown: set[str]):
    clock, config = HandClock(), load(["conf=quickstart", f"reward.accuracy={accuracy}", "reward.format=1"])
    run_state = RunState(Budget(60.0, 0.0, clock), Ledger(clock), config)
    row = {"pass@1": 0.0, "n": 2, "problems": 4, "ci95": (0.0, 0.1), "mean_length": 8.0, "truncated": 0.0}
    scores = PolicyScores.model_validate(row)
    run_state.measured("Base model", {"": scores, "aime": scores})
    assert run_state.progress(0).scores.keys() == shown


def test_errors_are_unanimous_in_groups_without_a_right_sample():
    groups = [group("", Status.CORRECT, Status.WRONG), group("", Status.WRONG, Status.UNPARSABLE)]
    groups += [group("", Status.TIMEOUT, Status.TIMEOUT), group("", Status.CORRECT, Status.CORRECT)]
    assert unanimous_errors(groups) == 2 / 3
    assert unanimous_errors(groups[3:]) == 0
