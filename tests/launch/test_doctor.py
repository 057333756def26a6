"""What a person runs first, on this machine and behind a stand-in for the driver."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from actors.errors import ActorDied
from conf.load import load
from launch import doctor
from launch.checkup.look import Finding
from launch.checkup.measurement import DOCTOR
from launch.doctor import main
from launch.hardware.machine import detect
from launch.plan.calibration import recall
from tests.launch.checkup.test_measurement import MEASURED

COMMAND = ["conf=quickstart", "device=cpu", "model.dtype=bfloat16"]


@pytest.fixture
def here(tmp_path: Path) -> list[str]:
    """The command, with a folder for runs that does not exist yet, as on a rented machine."""
    return [*COMMAND, f"run.folder={tmp_path / 'runs'}"]


def test_without_measuring_it_says_what_the_plan_does(here: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*here, "measure=false"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert said.startswith("python launch/doctor.py conf=quickstart device=cpu")
    assert "good machine:" in said
    assert "by the plan: nothing was measured here" in said
    assert main([*here, "measure=maybe"]) == 2
    assert "give measure=true or measure=false" in capsys.readouterr().err


def test_what_was_measured_is_kept_where_there_was_no_run_yet(
    here: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "examine", lambda plan, _: doctor.store(MEASURED, plan.config, plan.machine))
    assert main(here) == 0
    assert "(measured here: the doctor's check)" in " ".join(capsys.readouterr().out.split())
    assert recall(load(here), detect("cpu")).decode == 2.0


def test_an_engine_that_does_not_start_is_what_was_found(
    here: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def die(*_: object) -> None:
        raise ActorDied("rollout-0 died 3 times in a row: no kernel image is available")

    monkeypatch.setattr(doctor, "examine", die)
    assert main(here) == 1
    assert "bad measuring: rollout-0 died 3 times in a row" in " ".join(capsys.readouterr().out.split())


def test_a_card_that_cannot_be_used_is_all_it_says(
    nvidia_smi: Callable[[str], Path], here: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    nvidia_smi("0, GPU-a, NVIDIA A40, 46068, 45600, [N/A], 550.54.15, 8.6\n")
    assert main([argument for argument in here if argument != "device=cpu"]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "bad driver: 550.54.15" in said
    assert "Python" not in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["conf=r8_instruct", "device=A40"], "bad plan: device=A40: this machine has no A40"),
        (
            ["conf=quickstart", "rollout.kv_cache_gib=4000"],
            "bad plan: model.path=embedded:smollm2-135m: the",
        ),
    ],
)
def test_what_a_run_would_refuse_is_found(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "look_at_model", lambda _: Finding("model", "good", ""))
    assert main([*arguments, f"run.folder={tmp_path}", "measure=false"]) == 1
    assert said in " ".join(capsys.readouterr().out.split())


@pytest.mark.slow
def test_real_actors_are_measured_and_the_next_plan_knows(here: list[str], tmp_path: Path) -> None:
    def run(program: str, *more: str) -> str:
        command = [sys.executable, "-m", f"launch.{program}", *here, *more]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        print(done.stdout)
        return " ".join(done.stdout.split())

    said = run("doctor")
    rates = ("generates", "decode", "learn", "update", "swap", "both at once")
    for part in (*rates, "(measured here: the doctor's check)"):
        assert part in said
    found = recall(load(here), detect("cpu"))
    assert found.of == DOCTOR
    assert (found.decode, found.learn) != (1.0, 1.0)
    assert "corrected by what was measured here: the doctor's check" in run("run", "plan=true")
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["calibration.json"]
