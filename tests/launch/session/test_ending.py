import json
import shlex
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from microbudget_rl.actors.storage.documents import LedgerRecord, Origin, Planned, RunSummary
from microbudget_rl.actors.storage.folders import claim
from microbudget_rl.actors.storage.run_folder import RunFolder
from microbudget_rl.actors.storage.run_record import RunRecord
from microbudget_rl.conf.load import dump, load
from microbudget_rl.conf.schema import Config
from microbudget_rl.conf.settings import changed
from microbudget_rl.launch.session import ending
from microbudget_rl.launch.session.admission import admit
from microbudget_rl.launch.session.ending import OnEnd, next_steps, write_ending
from tests.actors.coordinator.test_actor import make_request
from tests.actors.virtual_run import NO_PROBLEMS


def test_summary_has_what_the_folder_still_tells_and_is_kept(tmp_path: Path):
    """The time counts in which nobody wrote it down."""
    (tmp_path / "spent.json").write_text('{"spent_s": 12.5}')
    (tmp_path / "events.jsonl").write_text('{"update": 1, "event": "died", "detail": "b"}\n{"upd')
    (tmp_path / "checkpoints" / "update-000007").mkdir(parents=True)
    (tmp_path / "checkpoints" / "latest").symlink_to("update-000007")
    request = make_request(tmp_path, spent_before=10.0)
    summary = write_ending(replace(request, started_at=request.started_at - 90), "failed", "it hung")
    assert summary.content == json.loads((tmp_path / "summary.json").read_text())
    assert (summary.status, summary.updates) == ("failed", 7)
    assert [event.event for event in summary.events] == ["died"]
    assert summary.spent_s == RunRecord(tmp_path).spent == pytest.approx(100.0, abs=1.0)
    assert write_ending(request, "failed", "another reason") == summary


@pytest.mark.long
@pytest.mark.parametrize("answered", [False, True])
@pytest.mark.parametrize("written", [None, {"status": "interrupted", "reason": "SIGTERM"}])
def test_process_that_outlives_its_budget_ends_itself(written: dict[str, str] | None, answered: bool, tmp_path: Path):
    """By the summary, if that is written. Without a coordinator it has used its budget up, and nothing hangs."""
    code = (
        "import sys, time; from pathlib import Path; from microbudget_rl.launch.session import ending;"
        "from tests.actors.coordinator.test_actor import make_request;"
        f"ending.{'LATE_S = -' if answered else 'FINISH_MARGIN_S = '}599.9;"
        f"ending.end_with_budget(make_request(Path(sys.argv[1])), lambda *_: None, {answered});"
        "time.sleep(600)"
    )
    if written:
        (tmp_path / "summary.json").write_text(json.dumps(written))
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], timeout=240)
    assert done.returncode == (143 if written else 1 if answered else 0)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary == written or summary["status"] == ("failed" if answered else "budget_exhausted")


@pytest.mark.parametrize(
    ("status", "updates", "settings", "more"),
    [
        ("budget_exhausted", 0, [], True),
        ("budget_exhausted", 5, [], True),
        ("budget_exhausted", 6, [], False),  # half of the planned ones
        ("budget_exhausted", 0, ["learner.schedule=linear", "learner.final_rate=0"], True),
        ("budget_exhausted", 5, ["learner.schedule=linear", "learner.final_rate=0"], False),
        ("completed", 5, [], False),
    ],
)
def test_run_that_made_few_updates_names_the_command_that_continues_it(
    status: str, updates: int, settings: list[str], more: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    given = ["conf=quickstart", "run.name=a b", f"run.folder={tmp_path}", *settings]
    config, run = load([*given, "budget.minutes=2"]), RunFolder(tmp_path / "a b")
    claim(run.path, "run")
    run.write_config(dump(config), NO_PROBLEMS)
    monkeypatch.setattr(sys, "argv", ["run.py", "budget.minutes=2", "run.overwrite=true", *given])
    run.write_origin(Origin(planned=Planned(updates=12, update_s=5.0, start_s=40.0)))
    summary = RunSummary(status=status, updates=updates, budget_s=120.0, spent_s=120.0)
    run.write_ending(summary)
    for start_s, minutes in ((10.0, 4), (200.0, 7)):
        run.write_spent(120.0, LedgerRecord(start_s=start_s))
        lines = next_steps(summary, config, run.path)
        found = [shlex.split(line)[-len(given) - 1 :] for line in lines if f"budget.minutes={minutes}" in line]
        assert found == ([[*given, f"budget.minutes={minutes}"]] if more else [])
        assert any("chat.py" in line for line in lines) == bool(updates)
        assert ("few-shot" in lines[-1]) == bool(updates)
        for arguments in found:
            admit(load(arguments))


def test_run_that_cannot_be_resumed_by_the_same_command_says_so(tmp_path: Path):
    given, run = ["conf=quickstart", f"run.folder={tmp_path}", "budget.minutes=2"], RunFolder(tmp_path)
    for spent_s, anew in ((20.0, "false"), (80.0, "true")):
        run.write_spent(spent_s, LedgerRecord(start_s=40.0))
        (line,) = next_steps(RunSummary(status="interrupted"), load([*given, f"run.overwrite={anew}"]), tmp_path)
        assert ("budget.minutes=3" in line) == (spent_s == 80.0)
        assert ("run.overwrite=true" in line) == (anew == "true")


SUMMARY = RunSummary(status="halted", reason="the adapter is not 'the' one; $HOME")


def command(text: str, folder: Path) -> OnEnd:
    config = changed(Config(), {"run.name": "mine", "run.on_end": text})
    return OnEnd(config, folder)


def test_command_learns_how_the_run_ended_and_runs_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    names = ("STATUS", "REASON", "EXIT_CODE", "NAME", "FOLDER")
    end = command("; ".join(f'echo "$MICROBUDGET_{name}"' for name in names), tmp_path)
    threads = [threading.Thread(target=end, args=(SUMMARY, 3)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert capfd.readouterr().out.splitlines() == ["halted", SUMMARY.reason, "3", "mine", str(tmp_path)]


@pytest.mark.parametrize(
    ("text", "reason", "said"),
    [
        ("exit 7", "it hung", "exit status 7"),
        ("sleep 60", "it hung", "timed out"),
        ("true", "a\0b", "null byte"),  # no environment can hold it
        ("", "it hung", ""),
    ],
)
def test_fault_of_the_command_is_said(
    text: str, reason: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
):
    monkeypatch.setattr(ending, "PATIENCE_S", 0.05 if "sleep" in text else 60.0)
    command(text, tmp_path)(SUMMARY.model_copy(update={"reason": reason}), 3)
    error = capfd.readouterr().err
    assert said in error
    assert bool(error) == bool(said)
