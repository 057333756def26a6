"""Every command and script explains how it is used."""

import importlib
import subprocess
from pathlib import Path

import pytest

from microbudget_rl.conf.help import recipe_lines
from microbudget_rl.conf.load import recipe_names
from microbudget_rl.launch import run
from microbudget_rl.launch.__main__ import COMMANDS as MODULES

LAUNCH = Path(run.__file__).parent
COMMANDS = {
    f"rewards.{name}" if "rewards" in module else f"launch/{name.replace('-', '_')}.py": module
    for name, module in MODULES.items()
    if name not in ("plan", "bundled")
}


@pytest.mark.parametrize("called", COMMANDS)
def test_command_explains_itself_with_examples(called: str, capsys: pytest.CaptureFixture[str]):
    main = importlib.import_module(COMMANDS[called]).main
    for arguments in ([], ["help"], ["--help"], ["-h"]):
        if arguments or called != "launch/run.py":  # which without a recipe is refused
            assert main(arguments) == 0
            captured = capsys.readouterr()
            assert captured.err == ""
            assert captured.out.partition("\nExamples")[2].count(called) >= 3


@pytest.mark.parametrize("script", sorted(path.name for path in LAUNCH.glob("*.sh")))
def test_script_explains_itself_and_does_nothing_else(script: str, tmp_path: Path):
    for words in (["-h"], ["--help"], ["help"], *([[]] if script == "node.sh" else [])):  # which needs an argument
        command, environment = ["bash", str(LAUNCH / script), *words], {"PATH": "/usr/bin:/bin"}
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
        assert (done.returncode, done.stderr) == (0, "")
        assert f"launch/{script}" in done.stdout.partition("Examples")[2]


def test_every_recipe_has_a_line():
    lines = recipe_lines()
    grid = [name for name in recipe_names() if name.startswith(("r8_", "r64_", "r256_"))]
    assert {*lines} == {*recipe_names(), "rRANK_NAME"} - {"base", *grid}
    assert all(lines.values())
    assert all(name.partition("_")[2] in lines["rRANK_NAME"] for name in grid)


def test_settings_are_shown_with_origin_and_meaning(capsys: pytest.CaptureFixture[str]):
    assert run.main(["conf=r64_instruct", "budget.minutes=30", "algorithm.preset=dapo", "show=true"]) == 0
    shown = capsys.readouterr().out
    settings = ["lora.rank=64  (recipe r64_instruct)", "lora.alpha=32  (recipe paper)"]
    settings += ["budget.minutes=30.0  (command line)", "algorithm.clip_high=0.28  (preset dapo)"]
    settings += ["checkpoint.every=10  (default)\n      Updates between checkpoints"]
    assert [setting for setting in settings if setting not in shown] == []
