import sys
import threading
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import ANY, Mock, call

import pytest

from microbudget_rl.actors import tracking
from microbudget_rl.actors.storage.documents import PolicyScores
from microbudget_rl.actors.storage.run_folder import RunFolder
from microbudget_rl.actors.tracking import WANDB, Tracking, check_installed, make_tracking
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.schema import Config
from microbudget_rl.conf.settings import changed
from tests.conftest import ROOT
from tests.fakes import make_group
from tests.run_folders import evaluation


def test_run_folder_shows_what_it_writes(tmp_path: Path):
    tracker, folder = Mock(), RunFolder(tmp_path)
    folder.recover(tracking=Tracking({"fake": tracker}))
    heldout = PolicyScores.model_validate(evaluation(6))
    row = folder.append_metrics(1, {"reward/mean": 0.5})
    folder.write_samples("update-000001", (make_group(0, version=1),))
    folder.write_evaluation("final", 1, heldout)
    folder.tracking.end({"status": "completed"}, 5.0)
    assert tracker.mock_calls == [
        call.begin(1),
        call.scalars(1, row),
        call.samples("update-000001", 1, [ANY, ANY]),
        call.scalars(1, {"eval/pass@1": 0.25, "eval/mean_length": 8.0, "eval/truncated": 0.0}),
        END,
    ]


END = call.end({"status": "completed"})


def begin(first: int = 1, rows: int = 0, **trackers: Any) -> Tracking:
    """Begin at an update, and log so many rows."""
    shown = Tracking(trackers)
    shown.begin(first)
    for update in range(first, first + rows):
        shown.scalars(update, {"reward/mean": 0.5})
    return shown


def losses(shown: Tracking) -> list[tuple[int, str]]:
    return [worker.losses() for worker in shown.workers]


def test_logger_that_fails_is_counted_and_said_once():
    failing, well = Mock(), Mock()
    failing.scalars.side_effect = [None, *[ConnectionError("no route to host")] * 3]
    shown = begin(rows=4, failing=failing, well=well)
    shown.end({"status": "completed"}, 5.0)
    assert losses(shown) == [(3, "ConnectionError: no route to host"), (0, "")]
    assert losses(shown) == [(0, "")] * 2
    assert failing.mock_calls[-1] == END
    assert well.scalars.call_count == 4


def test_logger_that_is_far_behind_holds_nobody_up_begins_anew_and_ends():
    """Else a rollback's abandoned updates stay in its curves, and this test and the end of a run wait in vain."""
    hanging, released = Mock(), threading.Event()
    hanging.scalars.side_effect = lambda *_: released.wait()
    shown = begin(rows=2 * tracking.WAITING, hanging=hanging)
    shown.begin(7)
    released.set()
    shown.end({"status": "completed"}, 300.0)
    ((lost, reason),) = losses(shown)
    assert (lost >= tracking.WAITING - 2, str(tracking.WAITING) in reason) == (True, True)
    assert (hanging.begin.mock_calls, hanging.mock_calls[-1]) == ([call(1), call(7)], END)


def test_logger_that_could_not_begin_is_tried_again_with_the_next_call():
    late = Mock()
    late.begin.side_effect = [OSError("no key"), None]
    shown = begin(7, rows=1, late=late)
    shown.end({"status": "completed"}, 5.0)
    assert late.mock_calls == [call.begin(7), call.begin(7), call.scalars(7, {"reward/mean": 0.5}), END]
    assert losses(shown) == [(1, "OSError: no key")]


def test_tensorboard_has_rows_samples_and_no_updates_that_do_not_count(tmp_path: Path):
    """And the overview comes first."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def process(first: int, last: int, value: float) -> None:
        shown = make_tracking(Config(), tmp_path, "a1")
        shown.begin(first)
        for update in range(first, last + 1):
            shown.scalars(update, {"reward/mean": value, "policy/entropy": 1.0, "reward/accuracy": 0.5})
        shown.scalars(last, {"eval/pass@1": 0.25})
        shown.samples("update-000001", 1, [{"prompt": "3 + 4", "response": "7", "status": "correct", "gold": "7"}])
        shown.end({"status": "completed"}, 60.0)
        assert losses(shown) == [(0, "")]

    process(1, 3, 0.25)
    process(3, 4, 0.5)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    found = [(event.step, event.value) for event in events.Scalars("reward/mean")]
    assert found == [(1, 0.25), (2, 0.25), (3, 0.5), (4, 0.5)]
    assert "samples/0/text_summary" in events.Tags()["tensors"]
    overview = [f"0 overview/{name}" for name in ("accuracy", "entropy", "held-out pass@1")]
    assert sorted(events.Tags()["scalars"])[: len(overview)] == overview


def log_to_wandb(folder: Path, update: int) -> None:
    """Log an update from a process of its own."""
    shown = make_tracking(changed(Config(), {"run.report_to": ["wandb"]}), folder, "a1")
    shown.begin(update)
    shown.scalars(update, {"reward/mean": 0.5})
    shown.samples(f"update-{update:06d}", update, [{"prompt": "3 + 4"}])
    shown.end({"status": "completed", "events": [{"detail": "disk"}]}, 60.0)
    assert losses(shown) == [(0, "")]


def test_wandb_has_one_run_over_all_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A stand-in replaces the package, which is an extra."""
    begun: list[dict[str, Any]] = []
    logged: list[dict[str, Any]] = []
    run = SimpleNamespace(define_metric=lambda *_, **__: None, log=logged.append, summary={}, finish=lambda: None)
    package = SimpleNamespace(
        init=lambda **given: begun.append(given) or run, Settings=dict, Table=lambda columns, data: (columns, data)
    )
    monkeypatch.setitem(sys.modules, "wandb", package)
    for update in (1, 2):
        log_to_wandb(tmp_path, update)
    assert [(each["id"], each["resume"]) for each in begun] == [("a1", "allow")] * 2
    assert logged[:2] == [{"reward/mean": 0.5, "update": 1}, {"samples/update": (["prompt"], [["3 + 4"]]), "update": 1}]
    assert logged[2:] == [
        {"events": (["detail"], [["disk"]])},
        *({**each, "update": 2} for each in logged[:2]),
        logged[2],
    ]
    assert run.summary == {"status": "completed"}


def test_logger_that_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("microbudget_rl.actors.tracking.find_spec", lambda _: None)
    check_installed(["tensorboard"])
    with pytest.raises(BadInput, match=r"run\.report_to=wandb"):
        check_installed(["tensorboard", "wandb"])
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert extras["loggers"] == [WANDB]
