"""The bench's own questions are what they are said to be."""

import random

from actors.messages import Status
from launch.benches.verify import algebra, easy, huge, latex, mix
from rewards.verify.comparison import decide_by_text
from rewards.verify.text.spelling import plain


def test_mix_is_repeatable_and_hardly_repeats_itself() -> None:
    questions = mix(1000, "huge")
    assert questions == mix(1000, "huge")
    assert len(set(questions)) > 900


def test_numbers_and_huge_numbers_need_no_algebra_and_the_others_do() -> None:
    rng = random.Random(0)
    for _ in range(100):
        assert decide_by_text(*map(plain, easy(rng))) in (Status.CORRECT, Status.WRONG)
        assert decide_by_text(*map(plain, huge(rng))) in (Status.WRONG, Status.UNPARSABLE)
        assert decide_by_text(*map(plain, algebra(rng))) is None
    assert any(decide_by_text(*map(plain, latex(rng))) is None for _ in range(20))
