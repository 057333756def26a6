"""Every command and script says how it is used."""

import importlib
import subprocess
from pathlib import Path

import pytest

from conf.help import recipe_lines
from conf.load import load, recipe_names
from launch import run

LAUNCH = Path(run.__file__).parent

COMMANDS = {
    **{
        name: f"launch.{name}"
        for name in (
            "run",
            "sweep",
            "evaluate",
            "report",
            "samples",
            "export",
            "push",
            "doctor",
            "chat",
            "serve",
            "doctor",
        )
    },
    "problems": "rewards.problems.__main__",
    "verify": "rewards.verify.__main__",
}


@pytest.mark.parametrize("arguments", [[], ["help"], ["--help"], ["-h"]], ids=str)
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_asked_for_help_shows_how_it_is_called_and_three_examples(
    name: str, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    if name == "run" and not arguments:
        pytest.skip("it starts a run, and one has to be named")
    assert importlib.import_module(COMMANDS[name]).main(arguments) == 0
    captured = capsys.readouterr()
    called = f"rewards.{name}" if name in ("problems", "verify") else f"launch/{name}.py"
    assert captured.err == ""
    assert "\nExamples" in captured.out
    assert captured.out.partition("\nExamples")[2].count(called) >= 3


def test_a_run_without_a_recipe_is_bad_input(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["plan=true"]):
        assert run.main(arguments) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "conf=quickstart" in line


@pytest.mark.parametrize("word", ["-h", "--help", "help"])
@pytest.mark.parametrize("script", sorted(path.name for path in LAUNCH.glob("*.sh")))
def test_a_script_asked_for_help_shows_it_and_does_nothing_else(script: str, word: str, tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", LAUNCH / script, word], capture_output=True, text=True, cwd=tmp_path, env={"PATH": "/usr/bin:/bin"}
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert f"launch/{script}" in done.stdout.partition("Examples")[2]


@pytest.mark.parametrize("script", ["node.sh", "slurm.sh"])
def test_a_script_that_needs_an_argument_explains_itself_without_one(script: str) -> None:
    done = subprocess.run(["bash", LAUNCH / script], capture_output=True, text=True)
    assert done.returncode == 0
    assert "Examples" in done.stdout


@pytest.mark.parametrize("name", ["run", "sweep", "evaluate", "samples", "export", "chat", "serve"])
def test_dashes_before_a_setting_are_refused_with_its_right_spelling(
    name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = [] if name in ("run", "sweep", "evaluate") else [str(tmp_path)]
    assert importlib.import_module(COMMANDS[name]).main([*folder, "--lora.rank=8"]) == 2
    assert "'--lora.rank=8': write lora.rank=8\n" in capsys.readouterr().err
    assert importlib.import_module(COMMANDS[name]).main([*folder, "--overwrite"]) == 2
    assert "write it as key=value" in capsys.readouterr().err


def test_every_recipe_has_a_line() -> None:
    lines = recipe_lines()
    grid = [name for name in recipe_names() if name.startswith(("r8_", "r64_", "r256_"))]
    assert {*lines} == {*recipe_names(), "rRANK_NAME"} - {"base", *grid}
    assert all(lines.values())
    assert "SmolLM2-135M-Instruct" in lines["quickstart"]
    assert all(name.partition("_")[2] in lines["rRANK_NAME"] for name in grid)


def test_settings_are_shown_with_origin_and_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["conf=r64_instruct", "budget.minutes=30", "algorithm.preset=dapo", "show=true"]) == 0
    shown = capsys.readouterr().out
    for line in (
        "lora.rank=64  (recipe r64_instruct)",
        "lora.alpha=32  (recipe paper)",
        "budget.minutes=30.0  (command line)",
        "algorithm.clip_high=0.28  (preset dapo)",
        "checkpoint.every=10  (default)\n      Updates between checkpoints",
    ):
        assert line in shown


@pytest.mark.parametrize(
    ("written", "card"),
    [
        ("4090", "RTX4090"),
        ("RTX 4090", "RTX4090"),
        ("GeForce RTX 3090", "RTX3090"),
        ("a40", "A40"),
        ("A40 48GB", "A40"),
        ("A100", "A100-40"),
        ("A100 80GB", "A100-80"),
        ("NVIDIA H100 SXM", "H100"),
        ("H100 PCIe", "H100-PCIe"),
        ("RTX A6000", "A6000"),
        ("6000 Ada", "RTX6000Ada"),
        ("CPU", "cpu"),
    ],
)
def test_cards_are_known_by_the_names_that_people_use(written: str, card: str) -> None:
    assert load(["conf=quickstart", "plan=true", f"device={written}"]).device == card
