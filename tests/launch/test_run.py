import socket
import subprocess
import sys
from pathlib import Path

import pytest

from actors.room import Room
from conf.errors import BadInput
from conf.schema import DashboardConfig
from launch import run
from launch.machine import detect
from launch.sessions import note_session


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "detect", lambda device: detect("cpu") if device in ("auto", "cpu") else detect(device))


def complaint(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that bad input gets, after exit code 2 was checked."""
    assert run.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "conf=quickstart"),
        (["conf=quikstart"], "nearest: quickstart"),
        (["conf=quickstart", "lora.rnk=8"], "lora.rank"),
        (["conf=quickstart", "lora.rank=-4"], "lora.rank=-4"),
        (["conf=quickstart", "lora.rank=many"], "a whole number"),
        (["conf=quickstart", "data.source=file:nowhere.jsonl"], "nowhere.jsonl"),
        (["conf=quickstart", "data.source=reasoning_gym:chain_sun"], "chain_sum"),
        (["conf=quickstart", "model.path=/no/such/folder"], "/no/such/folder"),
        (["conf=quickstart", "device=A40"], "this machine has no A40"),
    ],
)
@pytest.mark.usefixtures("no_gpu")
def test_bad_input_is_one_line_and_exit_code_two(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    settings = [f"run.folder={tmp_path}", "dashboard.port=0"] if arguments else []
    assert said in complaint([*arguments, *settings], capsys)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("no_gpu")
def test_large_model_without_a_gpu_is_refused_with_the_plans_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    said = complaint(["conf=r256_instruct"], capsys)
    assert "1.5 billion parameters needs" in said
    assert "device=cpu" in said


def test_plan_is_printed_without_anything_heavy_being_imported() -> None:
    code = (
        "import sys; from launch.run import main; code = main(sys.argv[1:]);"
        "print('heavy:', sorted({'torch', 'ray', 'vllm', 'transformers'} & set(sys.modules))); sys.exit(code)"
    )
    arguments = ["conf=r256_instruct", "plan=true", "device=A40"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert "heavy: []" in done.stdout
    for part in ("Placement", "0.45 of a GPU", "Memory", "budget", "24 h"):
        assert part in done.stdout


def test_taken_port_is_refused_and_zero_takes_any() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(BadInput, match=f"dashboard.port={port}"):
            run.free_port(DashboardConfig(port=port))
        assert run.free_port(DashboardConfig(port=0)) not in (0, port)


def test_nothing_is_lost_when_an_overwriting_run_cannot_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "quickstart" / "summary.json"
    kept.parent.mkdir()
    kept.write_text("{}")
    arguments = ["conf=quickstart", f"run.folder={tmp_path}", "run.overwrite=true", "data.source=file:nowhere.jsonl"]
    assert "nowhere.jsonl" in complaint([*arguments, "dashboard.port=0"], capsys)
    assert kept.read_text() == "{}"


@pytest.mark.usefixtures("no_gpu")
def test_room_is_measured_after_leftovers_are_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    session, run_folder = tmp_path / "ray" / "session_before", tmp_path / "runs" / "quickstart"
    for folder in (session, run_folder):
        folder.mkdir(parents=True)
    note_session(run_folder, session)

    def measure(need: Room, folder: Path, overwrite: bool) -> None:
        assert not session.exists()
        assert overwrite
        raise BadInput("no room")

    monkeypatch.setattr(run, "check_room", measure)
    arguments = ["conf=quickstart", f"run.folder={tmp_path / 'runs'}", "run.overwrite=true"]
    assert "no room" in complaint(arguments, capsys)
