from hypothesis import given
from hypothesis import strategies as st

from microbudget_rl.actors.coordinator.rules.selection import REWARD, SCORE, Selection

validations = st.lists(st.sampled_from((None, 0.0, 0.2, 0.25, 0.5, 1.0)), max_size=20)


def rows(*scores: float | None) -> list[dict[str, float]]:
    """Rows of updates from 1 on; None for one that was not validated."""
    found = enumerate(scores, start=1)
    return [{"update": update, **({} if score is None else {SCORE: score})} for update, score in found]


def test_highest_mean_of_a_validation_and_the_one_before_is_chosen():
    assert Selection(rows(None, None)).chosen is None
    assert Selection(rows(0.2, None, 0.3, 0.4, 0.3, 0.2)).chosen == 5, "0.35 twice: the later of two equal ones"
    assert Selection(rows(0.4, 0.1, 0.6, 0.1, 0.5, 0.5)).chosen == 6, "a single high one does not win"
    assert Selection(rows(0.5, 0.4, 0.3)).chosen == 1
    assert Selection(rows(0.0, 0.0)).chosen == 2


def test_validations_are_counted_since_the_highest_score_rose():
    assert Selection(rows(0.4, None, 0.4, 0.2)).unrisen == 2, "an equal one is no rise"
    assert Selection(rows(0.4, 0.2, 0.8)).unrisen == 0


def test_validations_have_fallen_for_good_after_three_low_ones_in_a_row():
    assert Selection(rows(0.8, 0.8, 0.6, 0.6, None, 0.6)).fallen
    assert not Selection(rows(0.8, 0.8, 0.6, 0.6, 0.7, 0.6)).fallen
    rewards = [{"update": row["update"], REWARD: 50 * row[SCORE]} for row in rows(0.8, 0.8, 0.6, 0.6, 0.6)]
    assert not Selection(rewards).fallen, "a reward has a scale of its own"


@given(validations, st.sets(st.integers(1, 20)))
def test_choice_is_a_function_of_the_rows_and_the_checkpoints_left(scores: list[float | None], kept: set[int]):
    """Rebuilt from the rows it goes on as it was. If the chosen checkpoint is gone, another that is left is chosen."""
    live = Selection()
    for number, row in enumerate(known := rows(*scores)):
        live.add_row(row)
        assert vars(live) == vars(Selection(known[: number + 1]))
        assert (live.chosen == row["update"]) == (live.chosen == number + 1)
    found, validated = Selection.among(kept, known), {row["update"] for row in known if SCORE in row}
    assert found.chosen == live.chosen or live.chosen not in kept
    assert (found.chosen is None) == (not kept & validated)
    assert found.chosen in (None, *(kept & validated))
