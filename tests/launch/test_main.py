import inspect
from importlib import import_module
from pathlib import Path

import pytest

import launch
from launch.__main__ import COMMANDS, main


def test_every_command_is_there() -> None:
    """What a person types as `python launch/NAME.py`, but for `result`, which is a script's."""
    files = {file.stem for file in Path(launch.__file__).parent.glob("*.py") if "\n@command(" in file.read_text()}
    assert files - {"__main__", "result"} <= COMMANDS.keys()
    for module, _ in COMMANDS.values():
        assert list(inspect.signature(import_module(module).main).parameters)[:1] == ["arguments"]


def test_no_command_is_bad_input(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "conf=quickstart" in line


def test_overview_names_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help"]) == 0
    said = capsys.readouterr().out
    assert all(f"\n  {name} " in said for name in COMMANDS)


def test_arguments_go_to_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "conf=quikstart"]) == 2
    assert "run.py: conf=quikstart: no such recipe; nearest: quickstart" in capsys.readouterr().err
    assert main(["report", "nowhere"]) == 2
    assert capsys.readouterr().err == "report.py: there is no folder nowhere\n"


def test_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rnu"]) == 2
    assert "microbudget: rnu: no such command; nearest: run" in capsys.readouterr().err
