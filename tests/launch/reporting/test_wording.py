import pytest

from launch.reporting.wording import compact, count, percent, points, shorten, span, time


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (percent(0.8203), "82.0 %"),
        (percent(None), "–"),
        (points(0.0501), "+5.0"),
        (points(-0.0501), "−5.0"),
        (points(-0.0001), "+0.0"),
        (span((-0.02, 0.105)), "−2.0 to 10.5"),
        (compact(2e-4), "2e-4"),
        (compact(True), "on"),
        (count(17829), "17,829"),
        (time(600), "10 min"),
    ],
)
def test_numbers_read_well(said: str, expected: str) -> None:
    assert said.replace("\N{NO-BREAK SPACE}", " ") == expected


def test_long_text_keeps_its_ends() -> None:
    short = shorten("a" * 5000 + "answer", 100)
    assert short.startswith("a" * 50)
    assert short.endswith("answer")
    assert "4,906 characters" in short
