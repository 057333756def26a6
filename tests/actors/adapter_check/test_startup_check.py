import random
from math import nan

from actors.adapter_check.startup_check import find_mistake
from actors.protocols import FAITHFUL

TOKENS = 64


def views(seed: int, size: float) -> dict[str, tuple[float, ...]]:
    """What the learner sees: some mistakes take it farther from the truth than others."""
    rng = random.Random(seed)
    truth = [rng.uniform(-3.0, -1.0) for _ in range(TOKENS)]
    far = {"no adapter": 4.0, "alpha is doubled": 5.0, "k_proj has no adapter": 1.0, "v_proj has no adapter": 2.0}
    moved = {name: tuple(p + rng.gauss(0.0, size * times) for p in truth) for name, times in far.items()}
    return {FAITHFUL: tuple(truth), **moved}


def heard(view: tuple[float, ...], seed: int, noise: float) -> list[float]:
    rng = random.Random(f"noise/{seed}")
    return [p + rng.gauss(0.0, noise) for p in view]


def test_noise_as_large_as_a_mistake_is_none() -> None:
    for seed in range(300):
        seen = views(seed, size=0.2)
        assert find_mistake(heard(seen[FAITHFUL], seed, noise=0.2), seen) == ""


def test_each_mistake_is_found_under_half_as_much_noise() -> None:
    for seed in range(100):
        seen = views(seed, size=0.2)
        for name, view in seen.items():
            if name != FAITHFUL:
                assert find_mistake(heard(view, seed, noise=0.1), seen) == name


def test_what_no_mistake_explains_is_none_of_them() -> None:
    seen = views(0, size=0.2)
    assert "its weights were others" in find_mistake(heard(seen[FAITHFUL], 0, noise=1.0), seen)


def test_what_is_no_number_is_a_mistake() -> None:
    seen = views(0, size=0.2)
    truth = seen[FAITHFUL]
    assert "no numbers" in find_mistake([nan, *truth[1:]], seen)
    assert "no numbers" in find_mistake(list(truth), seen | {FAITHFUL: (nan, *truth[1:])})
