"""Runs that end before their time: the same command goes on, with the same problems in the same order."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from microbudget_rl.actors.storage.files import seal
from tests.faults.conftest import COORDINATOR, LEARNER, Ended, Run, latest, learned_from

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

Begin = Callable[..., Run]

SETTINGS = ("eval.problems=0", "checkpoint.every=3", "checkpoint.keep_last=3")


@pytest.fixture(scope="module")
def uninterrupted(begin_once: Begin) -> Ended:
    ended = begin_once("uninterrupted", "budget.updates=16", *SETTINGS).end()
    assert ended.code == 0, ended.output
    return ended


def check_continued(ended: Ended, uninterrupted: Ended) -> None:
    """Check that no update is missing or there twice, and that the problems are those of an uninterrupted run."""
    assert ended.code == 0, ended.output
    assert [row["update"] for row in ended.rows] == list(range(1, 17))
    problems, expected = learned_from(ended), learned_from(uninterrupted)
    common = problems.keys() & expected.keys()
    assert len(common) >= 15 * 4
    assert {index: problems[index] for index in common} == {index: expected[index] for index in common}


def test_run_goes_on_by_itself_when_the_coordinator_is_killed(begin: Begin):
    run = begin("coordinator", "budget.updates=16", *SETTINGS)
    run.wait_for_update(4)
    coordinator = run.find(COORDINATOR)
    assert Path(f"/proc/{coordinator.pid}/oom_score_adj").read_text().strip() == "0"
    saved = latest(run.folder)
    coordinator.kill()
    run.wait_until(lambda: latest(run.folder) > saved, "checkpoint after the restart")
    ended = run.end()
    assert ended.code == 0, ended.output
    assert [row["update"] for row in ended.rows] == list(range(1, 17))
    learned_from(ended)
    (event,) = ended.events("coordinator died")
    assert ended.output.count(f"coordinator died: {event}") == 1
    assert f"restarting from update {saved}, attempt 1 of" in event
    assert ended.summary["ledger"]["counts"]["deaths/coordinator"] == 1


def test_kill_of_the_driver_takes_everything_along_and_is_resumed(begin: Begin, uninterrupted: Ended):
    run = begin("driver", "budget.updates=16", *SETTINGS)
    run.wait_for_update(4)
    run.look()
    run.process.kill()
    run.process.wait()
    run.check_nothing_left()
    session = Path(json.loads((run.folder / "ray-session").read_text())["temporary"])
    assert session.exists()
    saved, spent = latest(run.folder), json.loads((run.folder / "spent.json").read_text())["spent_s"]
    again = begin("driver", "budget.updates=16", *SETTINGS)
    again.wait_until(lambda: latest(again.folder) > saved, "checkpoint after the resume")
    ended = again.end()
    check_continued(ended, uninterrupted)
    assert ended.summary["spent_s"] > spent > 0
    assert not session.exists()


@pytest.mark.parametrize("victim", [COORDINATOR, LEARNER])
def test_kill_while_a_checkpoint_is_written(begin: Begin, uninterrupted: Ended, victim: str):
    name = f"writing-{victim.removeprefix('ray::')}"
    settings = ("budget.updates=16", *SETTINGS[:1], "checkpoint.every=1", *SETTINGS[2:])
    run = begin(name, *settings)
    run.wait_for_update(2)
    process = run.find(victim)
    folder = run.folder / "checkpoints"
    run.wait_until(lambda: any(folder.glob(".update-*.tmp")), "checkpoint under way", pause=0.001)
    process.kill()
    check_continued(run.end(), uninterrupted)
    assert not list(folder.glob(".update-*.tmp"))


def test_damaged_checkpoint_gives_way_to_the_one_before(begin: Begin, uninterrupted: Ended):
    run = begin("damaged", "budget.updates=16", *SETTINGS)
    run.wait_until(lambda: latest(run.folder) >= 6, "second checkpoint")
    ended = run.end(signal.SIGTERM)
    assert ended.code == 143, ended.output
    state = (ended.folder / "checkpoints" / "latest").resolve() / "learner.safetensors"
    content = bytearray(state.read_bytes())
    content[-1] ^= 1
    state.write_bytes(content)
    resumed = begin("damaged", "budget.updates=16", *SETTINGS).end()
    check_continued(resumed, uninterrupted)
    (event,) = resumed.events("checkpoint refused")
    assert "learner.safetensors" in event
    assert event in resumed.output


def test_no_good_checkpoint_is_bad_input(begin: Begin):
    """The learner finds senseless files, the coordinator damaged ones."""
    settings = ("budget.updates=16", *SETTINGS[:2], "checkpoint.keep_last=1")
    run = begin("lost", *settings)
    run.wait_for_update(4)
    newest = (run.end(signal.SIGTERM).folder / "checkpoints" / "latest").resolve()
    state = load_file(newest / "learner.safetensors")
    name = next(iter(state))
    save_file({**state, name: state[name] * float("nan")}, newest / "learner.safetensors")
    seal(newest)
    for told in (f"{newest}: {name}", "learner.json"):
        refused = begin("lost", *settings)
        output = refused.output()
        assert refused.process.returncode == 2, output
        assert told in output
        (newest / "learner.json").unlink(missing_ok=True)


def test_second_signal_leaves_at_once_and_keeps_the_checkpoint(begin: Begin, uninterrupted: Ended):
    run = begin("hurried", "budget.updates=16", *SETTINGS)
    run.wait_until(lambda: latest(run.folder) >= 3, "first checkpoint")
    run.look()
    run.process.send_signal(signal.SIGTERM)
    time.sleep(0.2)  # the kernel delivers the smaller number of two signals first
    ended = run.end(signal.SIGINT)
    assert ended.code == 128 + signal.Signals[ended.summary["reason"]], ended.output
    check_continued(begin("hurried", "budget.updates=16", *SETTINGS).end(), uninterrupted)


def test_interrupt_from_the_terminal_reaches_all_processes_and_ends_gracefully(begin: Begin):
    run = begin("terminal", "budget.updates=400", *SETTINGS)
    run.wait_for_update(4)
    run.look()
    os.killpg(run.process.pid, signal.SIGINT)
    ended = run.end()
    assert (ended.code, ended.summary["status"], ended.summary["reason"]) == (130, "interrupted", "SIGINT")
    assert latest(ended.folder) == ended.summary["updates"]


def test_halted_run_resumes_once_its_cause_is_gone(begin: Begin):
    nervous = ("guard.window=8", "guard.patience=1", "guard.limit=0.5")
    halted = begin("halted", "budget.updates=400", "guard.action=stop", *nervous, *SETTINGS).end()
    assert halted.code == 3, halted.output
    assert halted.summary["status"] == "halted"
    updates = halted.summary["updates"] + 3
    resumed = begin("halted", f"budget.updates={updates}", "guard.action=warn", *nervous, *SETTINGS).end()
    assert resumed.code == 0, resumed.output
    assert "Resumed with guard.action=stop → warn" in resumed.output
    assert [row["update"] for row in resumed.rows] == list(range(1, updates + 1))
