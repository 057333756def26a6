import math

import pytest

from launch.exports.verification import fault


@pytest.mark.parametrize(
    ("learned", "noise", "off", "away", "said"),
    [
        (0.4, 0.02, 0.02, 0.4, ""),
        (0.4, 0.02, 0.031, 0.4, "differs from the adapter by 0.031 nats a token, more than 1.5 times the 0.02"),
        (0.4, 0.0, 0.00009, 0.4, ""),
        (0.4, 0.0, 0.00011, 0.4, "differs from the adapter"),
        (0.01, 0.02, 0.01, 0.019, "changes 0.01 nats a token, which is lost where the export's rounding changes 0.01"),
        (0.0, 0.02, 0.0, 0.0, "is lost"),
        (0.4, 0.02, math.nan, 0.4, "differs from the adapter by nan"),
    ],
)
def test_export_has_to_be_the_adapter_and_not_the_base(
    learned: float, noise: float, off: float, away: float, said: str
) -> None:
    found = fault(learned, noise, off, away)
    assert found == "" if said == "" else said in found
