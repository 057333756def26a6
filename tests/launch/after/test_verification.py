import math
from pathlib import Path

import pytest
import torch

from launch.after.verification import fault, load, logprobs


@pytest.mark.parametrize(
    ("learned", "noise", "off", "away", "said"),
    [
        (0.4, 0.02, 0.02, 0.4, ""),
        (0.4, 0.02, 0.031, 0.4, "differs from the adapter"),
        (0.4, 0.0, 0.00009, 0.4, ""),
        (0.4, 0.0, 0.00011, 0.4, "differs from the adapter"),
        (0.01, 0.02, 0.01, 0.019, "is lost"),
        (0.0, 0.02, 0.0, 0.0, "is lost"),
        (0.4, 0.02, math.nan, 0.4, "differs from the adapter"),
    ],
)
def test_export_has_to_be_the_adapter_and_not_the_base(
    learned: float, noise: float, off: float, away: float, said: str
) -> None:
    found = fault(learned, noise, off, away)
    assert found == "" if said == "" else said in found


PROBES = [([1, 2, 3], [4, 5]), ([6, 7], [8, 9, 10, 11]), ([12] * 9, [13]), ([14, 15, 16, 17], [18, 19, 20])]


def test_tokens_of_answers_are_scored_under_all_before_them(tiny_model: Path) -> None:
    model = load(str(tiny_model))
    alone = []
    for prompt, answer in PROBES:
        logits = model(input_ids=torch.tensor([[*prompt, *answer]])).logits[0].log_softmax(-1)
        alone += [logits[len(prompt) - 1 + place, token] for place, token in enumerate(answer)]
    assert logprobs(model, PROBES).tolist() == pytest.approx(torch.stack(alone).tolist(), abs=1e-5)
