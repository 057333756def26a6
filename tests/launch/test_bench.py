from importlib import import_module

import pytest

from launch.bench import BENCHES, main


@pytest.mark.parametrize(("arguments", "words"), [(["learner", "memory"], "name one bench"), (["lerner"], "learner")])
def test_a_bench_has_to_be_named(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("name", BENCHES)
def test_every_bench_can_be_run(name: str) -> None:
    assert callable(import_module(f"launch.benches.{name}").run)
