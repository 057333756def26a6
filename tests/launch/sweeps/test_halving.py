"""Which rates are tried next: for any scores, and as a whole."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launch.sweeps.halving import KEEP, survivors, trials

RATES = st.lists(st.floats(1e-6, 1.0), min_size=2, max_size=12, unique=True).map(sorted)
SCORE = st.none() | st.floats(0, 1)


def play(
    rates: list[float], draw: st.DataObject, score: st.SearchStrategy[float | None] = SCORE
) -> list[dict[float, float | None]]:
    """The scores of all rungs, each over the rates that came so far."""
    rungs: list[dict[float, float | None]] = []
    for number in range(1, max(trial.rung for trial in trials(len(rates), 1, 0.5)) + 1):
        left = survivors(rates, rungs)
        assert left is not None
        assert len(left) <= sum(trial.rung == number for trial in trials(len(rates), 1, 0.5))
        rungs.append({rate: draw.draw(score) for rate in left})
    return rungs


@given(RATES, st.data())
def test_the_best_of_every_rung_come_to_the_next_and_one_is_left(rates: list[float], draw: st.DataObject) -> None:
    rungs = play(rates, draw)
    for number, scores in enumerate(rungs, 1):
        left = survivors(rates, rungs[:number])
        assert left is not None
        known = {rate: score for rate, score in scores.items() if score is not None}
        assert len(left) == min(math.ceil(len(scores) / KEEP), len(known))
        out = [known[rate] for rate in known if rate not in left]
        assert all(known[rate] >= score for rate in left for score in out)
        assert left == sorted(left, key=lambda rate: (-known[rate], rate))
    assert len(left) <= 1


@given(RATES, st.data())
def test_a_rung_is_decided_only_once_all_its_scores_are_there(rates: list[float], draw: st.DataObject) -> None:
    rungs = play(rates, draw)
    number = draw.draw(st.integers(0, len(rungs) - 1))
    if rungs[number]:
        del rungs[number][draw.draw(st.sampled_from(sorted(rungs[number])))]
        assert survivors(rates, rungs[: number + 1]) is None


@given(st.permutations([1e-5, 3e-5, 1e-4, 3e-4, 1e-3]), st.sampled_from([1e-5, 3e-5, 1e-4, 3e-4, 1e-3]))
def test_a_peak_is_found_in_whatever_order(rates: list[float], peak: float) -> None:
    scores = {rate: -abs(math.log(rate / peak)) for rate in rates}
    assert survivors(rates, [scores]) == sorted(rates, key=lambda rate: -scores[rate])[:2] or peak in survivors(
        rates, [scores]
    )
    assert survivors(rates, [scores, scores]) == [peak]


@given(st.integers(2, 30), st.integers(1, 9), st.floats(0.05, 0.9))
def test_every_rung_takes_as_much_and_all_of_them_their_share(rates: int, runs: int, share: float) -> None:
    made = trials(rates, runs, share)
    times = [sum(trial.share for trial in made if trial.rung == rung) for rung in {trial.rung for trial in made}]
    assert times == pytest.approx([times[0]] * len(times))
    assert sum(times) / (sum(times) + runs) == pytest.approx(share)


def test_five_rates_make_five_short_trials_and_two_longer_ones() -> None:
    assert [(trial.rung, trial.place) for trial in trials(5, 3, 0.3)] == [(1, n) for n in range(5)] + [(2, 0), (2, 1)]
    assert survivors([1.0, 2.0, 3.0], [{1.0: 0.5, 2.0: 0.5, 3.0: None}]) == [1.0]
    assert survivors([1.0, 2.0], [{1.0: None, 2.0: None}]) == []
