import pytest

from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.help import explain
from microbudget_rl.conf.schema import Config
from microbudget_rl.conf.settings import settings


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    explain(list(arguments), "usage")
    return " ".join(capsys.readouterr().out.split())


def test_a_section_lists_its_settings(capsys: pytest.CaptureFixture[str]):
    text = shown(capsys, "help", "learner")
    assert [item.path for item in settings(Config) if item.path.startswith("learner.") and item.path not in text] == []
    assert "lora." not in text


def test_a_setting_is_explained(capsys: pytest.CaptureFixture[str]):
    text = shown(capsys, "help", "lora.alpha")
    parts = ("lora.alpha=64 ", "Values: ≥1.", "Why: twice the rank")
    assert [part for part in parts if part not in text] == []
    assert "learner.world_size=null" in shown(capsys, "learner.world_size", "--help")
    assert "change it when you resume" in shown(capsys, "help", "learner.world_size")
    assert "model.shape.num_hidden_layers=0" in shown(capsys, "help", "model.shape")


@pytest.mark.parametrize(
    ("topic", "words"),
    [
        ("lerner", "nearest: learner"),
        ("temprature", "nearest: rollout.temperature, eval.temperature"),
        ("num_generations", "nearest: rollout.samples_per_problem"),
        ("zzz", "all sections: run"),
    ],
)
def test_an_unknown_topic_is_refused(topic: str, words: str):
    with pytest.raises(BadInput, match=f"help {topic}: .*{words}"):
        explain(["help", topic], "usage")
