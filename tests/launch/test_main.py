import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

from microbudget_rl import launch
from microbudget_rl.launch.__main__ import COMMANDS, main


def test_every_command_exists(capsys: pytest.CaptureFixture[str]):
    """A person types them as `python launch/NAME.py`; `result` is a script's."""
    files = {file.stem for file in Path(launch.__file__).parent.glob("*.py") if "\n@command(" in file.read_text()}
    assert {file.replace("_", "-") for file in files - {"__main__"}} <= {*COMMANDS}
    assert all(callable(import_module(module).main) for module in COMMANDS.values())
    assert main(["help"]) == 0
    said = capsys.readouterr().out
    assert all(f"\n  {name} " in said for name in COMMANDS)
    assert main(["--version"]) == main(["plan", "conf=gsm8k", "device=A40", "plan=true"]) == 0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "microbudget: .*conf=quickstart"),
        (["rnu"], "microbudget: .*nearest: run"),
        (["run", "conf=quikstart"], r"run\.py: .*nearest: quickstart"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], expected: str, refused: Callable[..., str]):
    assert re.match(expected, refused(main, arguments))
