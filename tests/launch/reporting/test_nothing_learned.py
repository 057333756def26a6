"""What a report says of runs that learn nothing, with the choice among their versions included."""

from math import sqrt
from statistics import fmean

import numpy as np

from microbudget_rl.actors.coordinator.rules.selection import SCORE, Selection
from microbudget_rl.actors.evaluation.statistics import SIGNIFICANT, over_problems, paired_difference
from microbudget_rl.launch.reporting.run_conclusion import Effect

RUNS = 200
VALIDATIONS, CHOOSING, REPORTED, SAMPLES = 15, 64, 64, 1


def simulate(apart: bool) -> tuple[float, float]:
    """Return the fraction of runs whose report says that they have learned, and the mean gain that it states.

    All versions solve each problem with the base model's probability. apart: whether the problems that choose are
    others than the reported ones. Otherwise they are the first of these: the final evaluation repeats their samples.
    """
    draw, learned, gains = np.random.default_rng(0), 0, []
    for _ in range(RUNS):
        solved = draw.beta(0.5, 0.7, CHOOSING + REPORTED)
        samples = draw.random((VALIDATIONS + 1, SAMPLES, len(solved))) < solved
        first = REPORTED if apart else 0
        scores = samples[1:, 0, first : first + CHOOSING].mean(axis=1)
        rows = [{"update": update, SCORE: float(score)} for update, score in enumerate(scores, start=1)]
        chosen = Selection(rows).chosen
        assert chosen
        before, after = (dict(enumerate(samples[of, :, :REPORTED].mean(axis=0).tolist())) for of in (0, chosen))
        difference = paired_difference(before, after)
        assert difference
        levels = over_problems(before.values()), over_problems(after.values())
        learned += Effect(*levels, REPORTED, difference).finding == "rose"
        gains.append(difference.value)
    return learned / RUNS, fmean(gains)


def test_report_claims_learning_no_more_often_than_its_confidence_allows():
    """Within three standard errors of so many runs; 45,000 say it in 2.3 %."""
    most = SIGNIFICANT / 2
    claimed, gain = simulate(apart=True)
    assert claimed <= most + 3 * sqrt(most * (1 - most) / RUNS)
    assert abs(gain) < 3 * sqrt(2 * 0.25 / (REPORTED * SAMPLES) / RUNS)
    chased, too_high = simulate(apart=False)
    assert chased > claimed
    assert too_high > gain + 0.03
