import json
from pathlib import Path

import pytest
import yaml

from microbudget_rl.actors.results import read_run
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.launch.reporting.comparison import by_settings
from microbudget_rl.launch.reporting.history import read_sweep, read_together
from tests.run_folders import edited, write_run, write_sweep


def test_run_is_read_as_it_was_left_and_one_that_is_not_over_as_far_as_it_is(tmp_path: Path):
    folder = write_run(tmp_path / "one", rank=64, updates=5)
    with edited(folder / "summary.json") as summary:
        base = summary["eval"]["base"]
        base["reward/accuracy"] = 0.125
    run = read_run(folder)
    assert (run.name, run.summary.status, run.config["lora.rank"]) == ("one", "completed", 64)
    assert run.series("reward/accuracy") == ([0, 1, 2, 3, 4, 5], [0.125, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert [sum(solved.values()) for solved in map(run.solved, ("base", "final"))] == [2, 18]
    (folder / "summary.json").unlink()
    (folder / "eval-base.json").write_text(json.dumps(base))
    (folder / "spent.json").write_text('{"spent_s": 12.0}')
    run = read_run(folder)
    assert (run.summary.status, run.summary.spent_s, run.eval.final) == ("unfinished", 12.0, None)
    assert run.eval.base
    assert run.eval.base.content == base


def test_another_commit_is_another_setup_and_another_model_has_another(tmp_path: Path):
    pins = {"a": ("owner/one", "first"), "b": ("owner/one", "second"), "c": ("owner/two", "third")}
    for name, (model, pin) in pins.items():
        run = write_run(tmp_path / name, model=model)
        settings = yaml.safe_load((run / "config.yaml").read_text())
        settings["model"]["pin"] = pin
        (run / "config.yaml").write_text(yaml.safe_dump(settings))
    assert read_together([tmp_path / "a", tmp_path / "b"]).axes == {"model.pin": ("first", "second")}
    assert read_together([tmp_path / "a", tmp_path / "c"]).axes == {"model.path": ("owner/one", "owner/two")}


def test_axis_of_a_sweep_has_the_values_that_were_given(tmp_path: Path):
    """The run records the keys of a mapping."""
    sweep = write_sweep(tmp_path, {name: {"rank": 64} for name in "abcd"})
    given = [(alpha, {"max_terms": terms}) for alpha in (32, 64) for terms in (2, 3)]
    with edited(sweep / "sweep.json") as document:
        for entry, (alpha, parameters) in zip(document["runs"], given, strict=True):
            entry["overrides"] |= {"lora.alpha": alpha, "data.parameters": parameters}
    axes = read_sweep(sweep).axes
    assert {axis: len(values) for axis, values in axes.items()} == {"lora.alpha": 2, "data.parameters": 2}
    assert [len(repeats.runs) for repeats in by_settings(read_sweep(sweep))] == [1, 1, 1, 1]


def test_sweeps_are_compared_run_by_run(tmp_path: Path):
    """A stage of ranks and one of learning rates, with runs of the same names and budgets that failures have moved."""
    ranks = {f"r{rank}": {"rank": rank, "learning_rate": 1e-4} for rank in (8, 64)}
    rates = {"r8": {"rank": 8, "learning_rate": 3e-5}, "r64": {"rank": 64, "learning_rate": 3e-5, "status": "pending"}}
    first, second = write_sweep(tmp_path / "ranks", ranks), write_sweep(tmp_path / "rates", rates)
    with (second / "r8" / "config.yaml").open("a") as config:
        config.write("budget: {minutes: 4.5}\n")
    sweep = read_together([first, second, first])
    assert sweep.axes == {"lora.rank": (8, 64), "learner.learning_rate": (3e-5, 1e-4)}
    assert [run.name for run in sweep.runs] == ["ranks/r8", "ranks/r64", "rates/r8"]
    with pytest.raises(BadInput, match="none of its runs can be read yet"):
        read_together([first, write_sweep(tmp_path / "new", {"r8": {"rank": 8, "status": "pending"}})])
