import pytest

from actors.overlap import MEASURED, WARM_UP, Overlap


def feed(overlap: Overlap, in_turns: float, together: float, turns: int) -> list[bool]:
    """Seconds of a turn of 100 tokens in each mode; the modes turn by turn."""
    modes = []
    for _ in range(turns):
        modes.append(overlap.together)
        overlap.finish_turn(together if overlap.together else in_turns, 100)
    return modes


@pytest.mark.parametrize(("in_turns", "together", "chosen"), [(3.0, 2.0, True), (2.0, 3.0, False)])
def test_the_faster_mode_is_chosen_after_both_were_measured(in_turns: float, together: float, chosen: bool) -> None:
    each = WARM_UP + MEASURED
    modes = feed(Overlap("auto", 1), in_turns, together, 2 * each + 5)
    assert modes == [False] * each + [True] * each + [chosen] * 5


def test_longer_answers_do_not_count_against_a_mode() -> None:
    overlap = Overlap("auto", 1)
    for _ in range(WARM_UP + MEASURED):
        overlap.finish_turn(3.0, 100)
    for _ in range(WARM_UP + MEASURED):
        said = overlap.finish_turn(6.0, 300)
    assert overlap.chosen
    assert said == "overlapped: 50 tokens/s overlapped, 33 in turns"


def test_one_slow_turn_does_not_decide() -> None:
    overlap = Overlap("auto", 1)
    for seconds in [2.0] * 5 + [1.0, 1.0, 1.0, 60.0, 1.0]:
        overlap.finish_turn(seconds, 100)
    assert overlap.chosen


def test_what_was_chosen_or_asked_for_is_not_measured_again() -> None:
    assert feed(Overlap("auto", 1, chosen=True), 1.0, 9.0, 20) == [True] * 20
    assert feed(Overlap("on", 1), 1.0, 9.0, 20) == [True] * 20
    assert feed(Overlap("off", 1), 9.0, 1.0, 20) == [False] * 20


def test_nothing_overlaps_without_staleness() -> None:
    assert feed(Overlap("on", 0), 1.0, 1.0, 20) == [False] * 20
