"""Whole runs with every real part: Ray, vLLM, DeepSpeed, PEFT, math-verify and a tiny random model."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from safetensors.torch import load_file

from microbudget_rl.launch.reporting import conclusion
from tests.e2e.stranger import METRICS, SILENCE, answers
from tests.faults.conftest import LEARNER, ROLLOUT, WORKER, Ended, Run, begin, begin_once

__all__ = ["begin", "begin_once"]

pytestmark = pytest.mark.timeout(1800)

Begin = Callable[..., Run]

STARTS = 3.5
"""What is given to the second process of the shared run, in times that the first took to its first update: one to
start, one to replace engine and learner, one to learn, and something to spare on a busy machine.
"""


SEVEN = """
import actors, conf, launch, report
def seven(prompt, response, gold):
    return (actors.HALF + conf.HALF + launch.HALF + report.HALF) / 4 if "7" in response else 0.0
"""


@pytest.fixture(scope="module")
def mine(begin_once: Begin, tmp_path_factory: pytest.TempPathFactory) -> Begin:
    """Begin the shared run in a user's folder: a CSV, and a reward function among modules of the project's names."""
    folder = tmp_path_factory.mktemp("mine")
    (folder / "conf").mkdir()
    for name in ("actors", "conf/__init__", "launch", "report"):
        (folder / f"{name}.py").write_text("HALF = 0.5\n")
    (folder / "rewards.py").write_text(SEVEN)
    (folder / "sums.csv").write_text("problem,answer\n" + "".join(f"{n // 9} + {n % 9} =,7\n" for n in range(81)))
    settings = ("data.source=file:sums.csv", "reward.custom=[{function: 'rewards:seven', weight: 0.1}]")
    return lambda *further: begin_once("shared", *settings, *further, cwd=folder)


@pytest.fixture(scope="module")
def interrupted(mine: Begin) -> tuple[Ended, float]:
    """A run that is told to stop after its third update, and the seconds it took to the first."""
    run = mine("budget.minutes=30")
    seconds = run.wait_for_update(1)
    run.wait_for_update(3)
    run.process.send_signal(signal.SIGTERM)
    return run.end(), seconds


class Resumed(NamedTuple):
    """A run that has ended; before: what all its processes listened on, and what a stranger was answered there."""

    ended: Ended
    listening: dict[str, str]
    answers: dict[str, set[str]]


@pytest.fixture(scope="module")
def resumed(mine: Begin, interrupted: tuple[Ended, float]) -> Resumed:
    """The same run again, under a budget that ends it: engine, reward worker and learner are killed at once. Most of
    this file looks at it.
    """
    first, seconds = interrupted
    budget_s = first.summary["spent_s"] + STARTS * seconds
    run = mine(f"budget.minutes={budget_s / 60}")
    run.wait_for_update(first.summary["updates"] + 1)
    listening = run.listening()
    told_strangers = answers(listening)
    run.kill(ROLLOUT, WORKER, LEARNER)
    return Resumed(run.end(), listening, told_strangers)


@pytest.fixture(scope="module")
def ended(resumed: Resumed) -> Ended:
    return resumed.ended


def test_sigterm_ends_gracefully(interrupted: tuple[Ended, float]):
    first, _ = interrupted
    assert first.code == 143, first.output
    assert (first.summary["status"], first.summary["reason"]) == ("interrupted", "SIGTERM")
    assert first.summary["updates"] >= 3


def test_the_same_command_resumes_and_ends_within_the_budget(interrupted: tuple[Ended, float], ended: Ended):
    first, _ = interrupted
    assert ended.code == 0, ended.output
    assert ended.summary["status"] == "budget_exhausted"
    assert first.summary["spent_s"] < ended.summary["spent_s"] <= ended.summary["budget_s"]
    assert ended.summary["updates"] > first.summary["updates"]
    assert [row["update"] for row in ended.rows] == list(range(1, ended.summary["updates"] + 1))


def test_engine_reward_worker_and_learner_die_at_once_and_the_run_goes_on(ended: Ended):
    [engine], [learner] = ended.events("rollout-0 died"), ended.events("learner died")
    assert "kill -9" in engine
    [again] = ended.events("rollout-0 restarted")
    assert "requests sent again" in again
    assert "restarting from update" in learner
    assert ended.output.count(f"rollout-0 died: {engine}") == ended.output.count(f"learner died: {learner}") == 1
    assert ended.summary["ledger"]["counts"]["deaths/learner"] == 1
    assert ended.summary["ledger"]["counts"]["deaths/rollout"] == 1


def test_a_run_listens_on_the_loopback_interface_alone(resumed: Resumed):
    names = set(resumed.listening.values())
    assert {"gcs_server", "raylet", "ray::LearnerAct", "ray::RolloutAct"} <= {name[:15] for name in names}
    addresses = {
        address.rpartition(":")[0].removeprefix("::ffff:"): name for address, name in resumed.listening.items()
    }
    assert addresses.keys() <= {"127.0.0.1", "::1"}, addresses


def test_strangers_are_refused_on_every_port(resumed: Resumed):
    """But for the metrics, which all may read, and for ports that speak neither HTTP nor gRPC, which are not Ray's."""
    told = {f"{resumed.listening[place]} {place}": found for place, found in resumed.answers.items()}
    assert METRICS in told.values()
    assert sum(bool(found & {"401", "UNAUTHENTICATED"}) for found in told.values()) >= 8
    allowed = ({"401"}, {"UNAUTHENTICATED", "UNIMPLEMENTED"}, METRICS, SILENCE)
    assert not {place: found for place, found in told.items() if not any(found <= kind for kind in allowed)}


def test_files_of_a_run_are_its_users_alone(ended: Ended):
    assert not ended.folder.stat().st_mode & 0o077
    assert not Path("~/.ray").expanduser().stat().st_mode & 0o077


def test_held_out_problems_are_judged_before_and_after(ended: Ended):
    for when in ("base", "final"):
        evaluation = ended.summary["eval"][when]
        assert evaluation["problems"] == 16
        assert 0 <= evaluation["ci95"][0] <= evaluation["pass@1"] <= evaluation["ci95"][1] <= 1
        assert len((ended.folder / "samples" / f"eval-{when}.jsonl").read_text().splitlines()) == 16 * evaluation["n"]
    assert conclusion(ended.folder) in ended.output
    assert "held-out pass@1" in conclusion(ended.folder)


def test_rollouts_and_learner_overlap_within_the_staleness_bound(ended: Ended):
    ages = [row["staleness/max"] for row in ended.rows]
    assert set(ages) <= {0.0, 1.0}
    assert 1.0 in ages


def test_rollouts_use_the_version_they_claim(ended: Ended):
    """The engine's log-probabilities follow the learner's, which move away from the base model's."""
    assert all(row["adapter_check/disagreement"] < 0.1 for row in ended.rows)
    assert ended.rows[-1]["adapter_check/movement"] > 3 * ended.rows[-1]["adapter_check/disagreement"]
    assert all(row["mismatch/abs_mean"] < 0.5 for row in ended.rows)


def test_every_update_changes_the_adapter(ended: Ended):
    assert all(row["grad_norm"] > 0 for row in ended.rows if row["tokens/trained"])
    assert any(row["tokens/trained"] for row in ended.rows)
    assert any(row["reward/seven"] for row in ended.rows)


def test_summary_tells_how_far_the_model_has_moved(ended: Ended):
    found = ended.summary["plasticity"]
    before, after = found["probe_entropy"]["before"], found["probe_entropy"]["after"]
    assert 0 < before != after > 0
    assert found["probe_entropy"]["change"] == pytest.approx(after / before - 1)
    assert found["kl_to_base"] > 0
    assert len(found["adapter_norm"]) == 7
    assert all(norm > 0 for norm in found["adapter_norm"].values())
    assert len(found["effective_rank"]) == 14
    assert all(1 <= rank <= found["rank"] == 8 for rank in found["effective_rank"].values())
    assert len(json.loads((ended.folder / "reference_set.json").read_text())) == 16


def test_checkpoint_holds_a_plain_adapter(ended: Ended):
    newest = ended.folder / "checkpoints" / "latest"
    assert newest.resolve().name == f"update-{ended.summary['updates']:06d}"
    weights = load_file(newest / "adapter" / "adapter_model.safetensors")
    assert any(weight.abs().max() > 0 for name, weight in weights.items() if "lora_B" in name)
    assert json.loads((newest / "adapter" / "adapter_config.json").read_text())["r"] == 8


def test_tensorboard_has_the_curves_and_samples(ended: Ended):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(ended.folder / "tensorboard"))
    events.Reload()
    scalars = events.Tags()["scalars"]
    assert {"reward/mean", "policy/kl_to_base", "rollout/tokens_per_second", "eval/pass@1"} <= set(scalars)
    assert [event.step for event in events.Scalars("reward/mean")] == [row["update"] for row in ended.rows]
    assert "samples/0/text_summary" in events.Tags()["tensors"]


def test_report_is_made_and_where_to_look_is_printed(ended: Ended):
    assert "held-out pass@1" in (ended.folder / "report.html").read_text()
    assert (ended.folder / "report.md").exists()
    for hint in ("Ray dashboard  http://127.0.0.1:", "tensorboard --logdir", f"Report: {ended.folder}/report.html"):
        assert hint in ended.output


@pytest.mark.slow
def test_two_rollout_actors_share_the_groups(begin: Begin):
    """On two cores both share one; on cards they need two beside the learner's."""
    ended = begin("actors", "rollout.actors=2", "budget.updates=4").end()
    assert ended.code == 0, ended.output
    assert "rollout × 2" in ended.output
    assert len(ended.rows) == 4
    assert all(row["adapter_check/disagreement"] < 0.1 for row in ended.rows)
    assert not ended.summary["events"]


@pytest.mark.slow
def test_two_ranks_learn_and_one_goes_on(begin: Begin):
    run = begin("ranks", "learner.world_size=2")
    run.wait_for_update(3)
    run.process.send_signal(signal.SIGTERM)
    first = run.end()
    assert first.code == 143, first.output
    assert "learner × 2" in first.output

    target = first.summary["updates"] + 2
    second = begin("ranks", f"budget.updates={target}").end()
    assert second.code == 0, second.output
    assert [row["update"] for row in second.rows] == list(range(1, target + 1))
    assert all(row["adapter_check/disagreement"] < 0.1 for row in second.rows)
    assert all(row["grad_norm"] > 0 for row in second.rows if row["tokens/trained"])
