import random

from microbudget_rl.actors.adapter_check.at_start import find_mistake, is_far
from microbudget_rl.actors.protocols import FAITHFUL

TOKENS = 64


def views(seed: int, size: float) -> dict[str, tuple[float, ...]]:
    """What the learner sees: some mistakes take it farther from the truth than others."""
    rng = random.Random(seed)
    truth = [rng.uniform(-3.0, -1.0) for _ in range(TOKENS)]
    far = {"no adapter": 4.0, "alpha is doubled": 5.0, "k_proj has no adapter": 1.0, "v_proj has no adapter": 2.0}
    moved = {name: tuple(p + rng.gauss(0.0, size * times) for p in truth) for name, times in far.items()}
    return {FAITHFUL: tuple(truth), **moved}


def engine(view: tuple[float, ...], seed: int, noise: float) -> list[float]:
    rng = random.Random(f"noise/{seed}")
    return [p + rng.gauss(0.0, noise) for p in view]


def test_each_mistake_is_found_under_half_as_much_noise_and_noise_alone_is_none():
    for seed in range(200):
        seen = views(seed, size=0.2)
        assert find_mistake(engine(seen[FAITHFUL], seed, noise=0.2), seen) == ""
        tiny = views(seed, size=4e-4)
        assert find_mistake(engine(tiny["k_proj has no adapter"], seed, noise=1e-4), tiny) == ""
        assert not is_far(5e-4, views(seed, size=1e-6))
        for name, view in seen.items():
            expected = "" if name == FAITHFUL else name
            assert find_mistake(engine(view, seed, noise=0.1), seen) == expected
