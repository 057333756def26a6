import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest

from microbudget_rl.actors.runtime.host_resources import HostNeeds
from microbudget_rl.actors.runtime.ray_session import make_temporary
from microbudget_rl.actors.storage.folders import mark
from microbudget_rl.actors.storage.run_record import RunRecord
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.load import dump, load
from microbudget_rl.launch import run
from microbudget_rl.launch.hardware.machine import detect
from tests.trained_runs import write_trained


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "ray_session", lambda *_, **__: nullcontext())


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "detect", lambda device: detect("cpu") if device in ("auto", "cpu") else detect(device))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["budget.minutes=3"], "conf=quickstart"),
        (["conf=quickstart", "adapter=mine"], "lora.start_from"),
        (["conf=quickstart", "n=16"], "eval.n"),
        (["conf=quickstart", "benchmarks=[aime24]", "plan=true"], "eval.benchmarks"),
        (["conf=paper"], "launch/sweep.py conf=paper"),
        (["conf=quickstart", "data.source=file:nowhere.jsonl"], "nowhere.jsonl"),
        (["conf=quickstart", "model.path=/no/such/folder"], "/no/such/folder"),
        (["conf=quickstart", "device=A40"], "this machine has no A40"),
        (["conf=r256_instruct"], "1.5 billion parameters needs"),
    ],
)
@pytest.mark.usefixtures("no_gpu")
def test_bad_input_is_one_line_and_exit_code_two(
    arguments: list[str], said: str, refused: Callable[..., str], tmp_path: Path
):
    assert said in refused(run.main, [*arguments, f"run.folder={tmp_path}", "dashboard.port=0"])
    assert not [path for path in tmp_path.iterdir() if any(path.iterdir())]


@pytest.mark.long
def test_plan_is_printed_without_anything_heavy_being_imported():
    code = (
        "import sys; from microbudget_rl.launch.run import main; code = main(sys.argv[1:]);"
        "print('heavy:', sorted({'torch', 'ray', 'vllm', 'transformers'} & set(sys.modules))); sys.exit(code)"
    )
    arguments = ["conf=r256_instruct", "plan=true", "device=A40"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert "heavy: []" in done.stdout
    for part in ("Placement", "of a GPU", "Memory", "budget", "24 h"):
        assert part in done.stdout


@pytest.mark.usefixtures("no_gpu")
def test_plan_refuses_an_adapter_to_start_from_as_the_run_would(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Callable[..., str]
):
    write_trained(tmp_path / "runs" / "first", tiny_model)
    monkeypatch.chdir(tmp_path)
    asked = ["conf=quickstart", f"model.path={tiny_model}", "lora.start_from=runs/first", "plan=true"]
    assert run.main([*asked, "lora.rank=4"]) == 0
    error = refused(run.main, [*asked, "lora.rank=2"])
    assert "update-000004" in error
    assert "has rank 4" in error
    (tmp_path / "runs" / "first" / "checkpoints" / "latest").unlink()
    assert "no checkpoint" in refused(run.main, [*asked, "lora.rank=4"])


@pytest.mark.usefixtures("no_gpu")
def test_plan_where_a_run_would_join_a_cluster_names_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    for address in ("10.0.0.1:6379", ""):
        monkeypatch.setenv("RAY_ADDRESS", address)
        assert run.main(["conf=quickstart", "plan=true"]) == 0
        assert ("10.0.0.1:6379" in capsys.readouterr().out.splitlines()[0]) == bool(address)


@pytest.mark.usefixtures("no_gpu")
def test_an_overwriting_run_that_cannot_start_loses_nothing_but_the_leftovers_of_a_killed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Callable[..., str]
):
    (folder := tmp_path / "quickstart").mkdir()
    mark(folder, "run")
    (folder / "config.yaml").write_text(dump(load(["conf=quickstart"])))
    (folder / "summary.json").write_text("{}")
    session = make_temporary(folder)
    arguments = ["conf=quickstart", f"run.folder={tmp_path}", "run.overwrite=true", "dashboard.port=0"]

    def measure(need: HostNeeds, folder: Path, overwrite: bool) -> None:
        assert overwrite
        assert not session.exists()
        raise BadInput("no room")

    monkeypatch.setattr(run, "check_host", measure)
    for setting, said in (("data.source=file:nowhere.jsonl", "nowhere.jsonl"), ("run.seed=0", "no room")):
        assert said in refused(run.main, [*arguments, setting])
    assert (folder / "summary.json").read_text() == "{}"


DRIVER = """
import json, os, signal, sys, time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from rich.console import Console
from microbudget_rl.actors.storage.documents import RunSummary
from microbudget_rl.actors.storage.files import write_document
from microbudget_rl.conf.errors import TryLater
from microbudget_rl.conf.settings import changed
from microbudget_rl.launch.session import ending, watch
from microbudget_rl.launch import run
from tests.actors.coordinator.test_actor import make_request

what, folder = sys.argv[1], Path(sys.argv[2])
errors = {"busy": TryLater("Ray has not started"), "fault": ZeroDivisionError("by zero")}
request = make_request(folder, spent_before=50.0)
on_end = 'echo "$MICROBUDGET_STATUS" >> "$MICROBUDGET_FOLDER/ended"'
request = replace(request, config=changed(request.config, {"run.on_end": on_end}))

@contextmanager
def session():
    if what in ("SIGINT", "SIGTERM"):
        os.kill(os.getpid(), signal.Signals[what])
    if what in errors:
        raise errors[what]
    yield folder, ""
    if what == "hang":
        time.sleep(600)

timers, after = [], ending.after

def note(seconds, action):
    timers.append(after(seconds, action))
    return timers[-1]

def follow(answered):
    answered()
    write_document(folder / "summary.json", summary)
    return summary

def close(_):
    assert all(timer.finished.is_set() for timer in timers), "the budget's timer may still end a run that is over"

summary = RunSummary(status="halted", reason="it must", updates=1, spent_s=1.0)
run.SHUTDOWN_S, run.after, ending.after = 0.1, note, note
if what == "no conclusion":
    run.conclusion = None
watch.Watch = lambda *_: SimpleNamespace(follow=follow, close=close)
sys.exit(run.carry_out(request, Console(quiet=True), session()))
"""


@pytest.mark.long
@pytest.mark.parametrize(
    ("what", "code", "status", "reason"),
    [
        ("SIGINT", 130, "interrupted", "SIGINT"),
        ("SIGTERM", 143, "interrupted", "SIGTERM"),
        ("busy", 1, "failed", "Ray has not started"),
        ("fault", 1, "failed", "ZeroDivisionError: by zero"),
        ("hang", 3, "halted", "it must"),
        ("no conclusion", 1, "halted", "it must"),
    ],
)
def test_any_end_has_its_summary_its_exit_code_and_its_command(
    what: str, code: int, status: str, reason: str, tmp_path: Path
):
    """The driver has no Ray. It ends before there is a coordinator, slowly, or with a conclusion that fails."""
    done = subprocess.run([sys.executable, "-c", DRIVER, what, str(tmp_path)], timeout=240)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert done.returncode == code
    assert (summary["status"], summary["reason"]) == (status, reason)
    assert (tmp_path / "ended").read_text().split() == [status]
    if status != "halted":
        assert summary["spent_s"] == RunRecord(tmp_path).spent > 50.0
