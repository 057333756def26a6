"""Whole runs with every real part: Ray, vLLM, DeepSpeed, PEFT, math-verify and a tiny random model."""

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
from safetensors.torch import load_file

from launch.machine import detect
from tests.e2e.conftest import read_rows, read_summary

Start = Callable[..., subprocess.Popen[str]]

BUDGET_S = 240 if detect().gpus else 90
"""On a card vLLM compiles before it serves."""


class Ended(NamedTuple):
    code: int
    output: str
    folder: Path
    rows: list[dict[str, Any]]
    summary: dict[str, Any]


def finish(run: subprocess.Popen[str], folder: Path) -> Ended:
    output, _ = run.communicate()
    return Ended(run.returncode, output, folder, read_rows(folder), read_summary(folder))


def wait_for_update(run: subprocess.Popen[str], folder: Path, update: int) -> None:
    """Until metrics.jsonl has the row of an update; fails if the run ends before."""
    while run.poll() is None:
        if (folder / "metrics.jsonl").exists() and any(row["update"] >= update for row in read_rows(folder)):
            return
        time.sleep(0.2)  # another process writes the file
    pytest.fail(f"the run ended with {run.returncode}:\n{run.communicate()[0]}")


@pytest.fixture(scope="module")
def ended(start: Start) -> Ended:
    """One run that ends with its budget; most of this file looks at it."""
    return finish(start("spent", f"budget.minutes={BUDGET_S / 60}"), start.folder / "spent")  # type: ignore[attr-defined]


def test_run_ends_within_its_budget(ended: Ended) -> None:
    assert ended.code == 0, ended.output
    assert ended.summary["status"] == "budget_exhausted"
    assert ended.summary["budget_s"] == BUDGET_S
    assert ended.summary["spent_s"] <= BUDGET_S
    assert ended.summary["updates"] == len(ended.rows) >= 3


def test_held_out_problems_are_judged_before_and_after(ended: Ended) -> None:
    for when in ("base", "final"):
        evaluation = ended.summary["eval"][when]
        assert evaluation["problems"] == 16
        assert 0 <= evaluation["ci95"][0] <= evaluation["pass@1"] <= evaluation["ci95"][1] <= 1
        assert len((ended.folder / "samples" / f"eval-{when}.jsonl").read_text().splitlines()) == 16 * evaluation["n"]
    assert "before" in ended.output


def test_rollouts_and_learner_overlap_within_the_staleness_bound(ended: Ended) -> None:
    ages = [row["staleness/max"] for row in ended.rows]
    assert set(ages) <= {0.0, 1.0}
    assert 1.0 in ages


def test_rollouts_use_the_version_they_claim(ended: Ended) -> None:
    """The engine's log-probabilities follow the learner's, which move away from the base model's."""
    assert all(row["canary/disagreement"] < 0.1 for row in ended.rows)
    assert ended.rows[-1]["canary/movement"] > 3 * ended.rows[-1]["canary/disagreement"]
    assert all(row["mismatch/abs_mean"] < 0.5 for row in ended.rows)


def test_every_update_changes_the_adapter(ended: Ended) -> None:
    assert all(row["grad_norm"] > 0 for row in ended.rows if row["tokens/trained"])
    assert any(row["tokens/trained"] for row in ended.rows)


def test_checkpoint_holds_a_plain_adapter(ended: Ended) -> None:
    latest = ended.folder / "checkpoints" / "latest"
    assert latest.resolve().name == f"update-{ended.summary['updates']:06d}"
    weights = load_file(latest / "adapter" / "adapter_model.safetensors")
    assert any(weight.abs().max() > 0 for name, weight in weights.items() if "lora_B" in name)
    assert json.loads((latest / "adapter" / "adapter_config.json").read_text())["r"] == 8


def test_tensorboard_has_the_curves_and_samples(ended: Ended) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(ended.folder / "tensorboard"))
    events.Reload()
    scalars = events.Tags()["scalars"]
    assert {"reward/mean", "policy/kl_to_base", "rollout/tokens_per_second", "eval/pass@1"} <= set(scalars)
    assert [event.step for event in events.Scalars("reward/mean")] == [row["update"] for row in ended.rows]
    assert "samples/0/text_summary" in events.Tags()["tensors"]


def test_where_to_look_is_printed(ended: Ended) -> None:
    for hint in ("Ray dashboard  http://127.0.0.1:", "tensorboard --logdir", str(ended.folder)):
        assert hint in ended.output


def test_finished_run_is_not_overwritten_by_accident(start: Start, ended: Ended) -> None:
    again = finish(start("spent"), ended.folder)
    assert again.code == 2
    assert "run.overwrite=true" in again.output
    assert again.summary["status"] == "budget_exhausted"


def test_sigterm_ends_gracefully_and_the_same_command_resumes(start: Start) -> None:
    folder = start.folder / "resumed"  # type: ignore[attr-defined]
    run = start("resumed", "budget.minutes=10")
    wait_for_update(run, folder, 3)
    run.send_signal(signal.SIGTERM)
    first = finish(run, folder)
    assert first.code == 143, first.output
    assert (first.summary["status"], first.summary["reason"]) == ("interrupted", "SIGTERM")
    assert (folder / "checkpoints" / "latest").resolve().name == f"update-{first.summary['updates']:06d}"
    assert not [p for p in psutil.process_iter(["name"]) if p.info["name"].startswith(("VLLM", "ray::"))]

    target = first.summary["updates"] + 2
    second = finish(start("resumed", "budget.minutes=10", f"budget.updates={target}"), folder)
    assert second.code == 0, second.output
    assert second.summary["status"] == "completed"
    assert [row["update"] for row in second.rows] == list(range(1, target + 1))
    assert second.summary["spent_s"] > first.summary["spent_s"]


@pytest.mark.slow
def test_two_rollout_actors_share_the_groups(start: Start) -> None:
    """On two cores both share one; on cards they need two beside the learner's."""
    folder = start.folder / "actors"  # type: ignore[attr-defined]
    ended = finish(start("actors", "rollout.actors=2", "budget.minutes=10", "budget.updates=4"), folder)
    assert ended.code == 0, ended.output
    assert "rollout × 2" in ended.output
    assert len(ended.rows) == 4
    assert all(row["canary/disagreement"] < 0.1 for row in ended.rows)
    assert not ended.summary["events"]


@pytest.mark.slow
def test_two_ranks_learn_and_one_goes_on(start: Start) -> None:
    folder = start.folder / "ranks"  # type: ignore[attr-defined]
    run = start("ranks", "learner.ranks=2", "budget.minutes=10")
    wait_for_update(run, folder, 3)
    run.send_signal(signal.SIGTERM)
    first = finish(run, folder)
    assert first.code == 143, first.output
    assert "learner × 2" in first.output

    target = first.summary["updates"] + 2
    second = finish(start("ranks", "budget.minutes=10", f"budget.updates={target}"), folder)
    assert second.code == 0, second.output
    assert [row["update"] for row in second.rows] == list(range(1, target + 1))
    assert all(row["canary/disagreement"] < 0.1 for row in second.rows)
    assert all(row["grad_norm"] > 0 for row in second.rows if row["tokens/trained"])
