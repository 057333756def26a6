import importlib
import subprocess
import sys

import pytest

from conf.errors import BadInput
from conf.help import explain
from conf.schema import Config
from conf.settings import settings


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    explain(list(arguments), "usage")
    return " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("arguments", [["help"], ["conf=quickstart", "--help"]])
def test_overview_names_recipes_and_sections(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, *arguments)
    assert [
        word for word in ("quickstart", "learner The updates", "sweep For", "n For evaluate.py") if word not in text
    ] == []


def test_a_section_lists_its_settings(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, "help", "learner")
    assert [item.path for item in settings(Config) if item.path.startswith("learner.") and item.path not in text] == []
    assert "lora." not in text


def test_a_setting_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, "help", "lora.alpha")
    parts = (
        "lora.alpha=64 ",
        "alpha / rank",
        "Values: a whole number, 1 or more",
        "default: our choice: twice the rank",
    )
    assert [part for part in parts if part not in text] == []
    assert "learner.world_size=null" in shown(capsys, "learner.world_size", "--help")
    assert "resumed with another value" in shown(capsys, "help", "learner.world_size")
    assert "model.shape.num_hidden_layers=0" in shown(capsys, "help", "model.shape")


@pytest.mark.parametrize(
    ("topic", "words"),
    [
        ("lerner", "nearest: learner"),
        ("alhpa", "nearest: lora.alpha"),
        ("temprature", "nearest: rollout.temperature, eval.temperature"),
        ("num_generations", "use rollout.samples_per_problem"),
        ("zzz", "all sections: run"),
    ],
)
def test_an_unknown_topic_is_refused(topic: str, words: str) -> None:
    with pytest.raises(BadInput, match=f"help {topic}: .*{words}"):
        explain(["help", topic], "usage")


def test_run_py_explains_without_a_framework() -> None:
    """And quickly. Settings without a recipe are bad input, with a hint at help."""
    script = (
        "import sys; from launch.run import main;"
        "codes = [main(arguments) for arguments in (['help', 'lora'], ['-h'], ['help', 'x'], ['n=1'])];"
        "assert codes == [0, 0, 2, 2] and not {'torch', 'ray', 'vllm', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "lora.rank=32" in done.stdout
    assert "run.py help" in done.stderr


@pytest.mark.parametrize("command", ["sweep", "evaluate"])
def test_the_other_commands_explain_too(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert importlib.import_module(f"launch.{command}").main(["--help"]) == 0
    assert "Sections of settings" in capsys.readouterr().out
