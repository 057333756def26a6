import json
import os
import re
import shlex
import shutil
from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from actors.coordinator.rules.selection import SCORE
from actors.messages import EvaluationSet, Problem, ProblemSet
from actors.storage import folders, run_folder
from actors.storage.documents import LedgerRecord, PolicyScores
from actors.storage.files import lock, replace_text
from actors.storage.run_folder import RunFolder
from conf.errors import BadInput
from conf.load import dump, load
from conf.schema import Config
from conf.settings import changed
from launch.hardware.machine import GIB, Machine
from launch.session import preparation
from launch.session.admission import begin, find_folder, resolve_model
from launch.session.preparation import commit, origin
from tests.conftest import ROOT


def leave(folder: Path, status: str, *settings: str, **summary: float | str) -> None:
    """Leave the files of a run of the quickstart with these settings."""
    run = folder / "quickstart"
    run.mkdir()
    folders.mark(run, "run")
    (run / "config.yaml").write_text(dump(configure(folder, *settings)))
    (run / "summary.json").write_text(json.dumps({"status": status, **summary}))


def configure(folder: Path, *settings: str) -> Config:
    return load(["conf=quickstart", f"run.folder={folder}", *settings])


@pytest.mark.parametrize(
    ("path", "pin", "dtype", "present", "settled"),
    [
        ("owner/name", "", "auto", True, ("a" * 40, "bfloat16")),
        ("owner/name", "b" * 40, "float32", True, ("b" * 40, "float32")),
        ("owner/name", "", "auto", False, ("", "float32")),  # another machine has no run here
        ("owner/other", "", "auto", True, ("", "bfloat16")),
    ],
)
def test_run_keeps_the_model_dtype_and_adapter_it_began_with(
    path: str, pin: str, dtype: str, present: bool, settled: tuple[str, str], tmp_path: Path
) -> None:
    start = f"lora.start_from={tmp_path}/other"  # a run, which has another result by then
    begun = ["model.path=owner/name", f"model.pin={'a' * 40}", "model.dtype=bfloat16", f"{start}/adapter"]
    leave(tmp_path, "interrupted", *begun)
    rates = {"float32": 1e11, "bfloat16": 1e10}
    machine = Machine("slow at bfloat16", (0,), GIB, 0, 0, 1e10, rates, present=present)
    config = configure(tmp_path, f"model.path={path}", f"model.pin={pin}", f"model.dtype={dtype}", start)
    anew = changed(config, {"run.overwrite": True})
    for asked, expected, adapter in ((config, settled, "/adapter" * present), (anew, (pin, "float32"), "")):
        found = resolve_model(asked, machine)
        assert (found.model.pin, found.model.dtype) == expected
        assert found.lora.start_from == f"{tmp_path}/other{adapter}"


def test_start_that_ends_gives_the_run_before_its_name_back(tmp_path: Path) -> None:
    folder, aside = tmp_path / "one", tmp_path / "one.old-1"
    folders.claim(folder, "run")
    aside.mkdir()
    for before in (None, aside):  # the undoing of the last claim comes first
        folders.give_back(folder, before)
    assert [*tmp_path.iterdir()] == [folder]


def test_changes_are_listed_without_the_place_of_the_run(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    leave(tmp_path / "old", "interrupted")
    (tmp_path / "old").rename(tmp_path / "new")
    changed = configure(tmp_path / "new", "budget.minutes=20", "checkpoint.every=1", "learner.world_size=2")
    listed = ["budget.minutes=8.0 → 20.0", "checkpoint.every=20 → 1", "learner.world_size=None → 2"]
    assert begin(changed, find_folder(changed), problems("a")) == listed


def test_what_is_learned_may_not_change_on_resume(tmp_path: Path) -> None:
    leave(tmp_path, "interrupted", f"model.pin={'a' * 40}")
    with pytest.raises(BadInput, match=r"lora\.rank=32, not 8.*also changed: model\.pin"):
        find_folder(configure(tmp_path, "lora.rank=8", f"model.pin={'b' * 40}"))


def leave_spent(folder: Path, spent_s: float, start_s: float, evaluate_s: float) -> None:
    """Leave the times of a run beside its other files."""
    run = RunFolder(folder / "quickstart")
    run.write_spent(spent_s, LedgerRecord(start_s=start_s))
    if evaluate_s:
        round_s, n = evaluate_s / configure(folder).eval.n, configure(folder).eval.n
        figures = {"pass@1": 0.5, "n": n, "problems": 9, "ci95": [0, 1], "mean_length": 8, "truncated": 0}
        run.write_evaluation("base", 0, PolicyScores.model_validate({**figures, "round_seconds": round_s}))


@pytest.mark.parametrize(("start_s", "evaluate_s"), [(0.0, 0.0), (40.0, 0.0), (40.0, 16.0), (40.0, 90.0)])
def test_a_run_is_resumed_if_its_start_and_its_end_fit_into_the_rest(
    start_s: float, evaluate_s: float, tmp_path: Path
) -> None:
    leave(tmp_path, "interrupted")
    leave_spent(tmp_path, 1.0, start_s, evaluate_s)
    find_folder(configure(tmp_path))
    leave_spent(tmp_path, 475.0 - start_s - evaluate_s / 2, start_s, evaluate_s)
    with pytest.raises(BadInput, match=r"run\.overwrite=true") as caught:
        find_folder(configure(tmp_path))
    minutes = int(re.findall(r"budget\.minutes=(\d+)", str(caught.value))[0])
    find_folder(configure(tmp_path, f"budget.minutes={minutes}"))
    with pytest.raises(BadInput, match=f"budget.minutes={minutes}"):
        find_folder(configure(tmp_path, f"budget.minutes={minutes - 1}"))


def problems(*ids: str, selection: str = "") -> ProblemSet:
    made = [Problem(name, "", (1,), "") for name in (*ids, *selection)]
    return ProblemSet(tuple(made[: len(ids)]), (), {}, selection=tuple(made[len(ids) :]))


@pytest.mark.parametrize("written", range(4))
def test_a_kill_while_a_run_begins_does_not_keep_the_same_command_from_beginning(
    written: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process is killed before one of the files of `write_config` is in place; others are whole."""
    config, files = configure(tmp_path, "validation.every=5"), count()

    def replace(file: Path, text: str) -> None:
        if next(files) == written:
            file.with_name(f".{file.name}.tmp").touch()
            raise KeyboardInterrupt
        replace_text(file, text)

    monkeypatch.setattr(run_folder, "replace_text", replace)
    with suppress(KeyboardInterrupt):
        begin(config, find_folder(config), problems("a", selection="b"))
    begin(config, find_folder(config), problems("a", selection="b"))
    assert RunFolder(tmp_path / "quickstart").selection().keys() == {"b"}


@pytest.mark.parametrize(("begun", "now"), [(0, 5), (5, 0)])
def test_validations_are_neither_begun_nor_ended_on_resume(begun: int, now: int, tmp_path: Path) -> None:
    leave(tmp_path, "interrupted", f"validation.every={begun}")
    with pytest.raises(BadInput, match=rf"validation\.every={begun}, not {now}"):
        find_folder(configure(tmp_path, f"validation.every={now}"))
    if begun:
        find_folder(configure(tmp_path, f"validation.every={begun + 1}"))


@pytest.mark.parametrize(("asked", "goes_on"), [(3, False), (4, True), (0, True)])
def test_run_without_patience_goes_on_with_more_of_it(asked: int, goes_on: bool, tmp_path: Path) -> None:
    leave(tmp_path, "completed", "validation.every=1", "validation.patience=2", updates=4)
    rows = [{"update": update, "version": update, SCORE: score} for update, score in enumerate((0.5, 0, 0, 0), start=1)]
    (tmp_path / "quickstart" / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = configure(tmp_path, "validation.every=1", f"validation.patience={asked}")
    if goes_on:
        assert find_folder(config) == tmp_path / "quickstart"
        return
    with pytest.raises(BadInput, match=r"finished.*validation\.patience=6"):
        find_folder(config)


def test_two_processes_do_not_share_a_run(tmp_path: Path) -> None:
    config, folder = configure(tmp_path), tmp_path / "quickstart"
    descriptor = lock(folder)
    assert descriptor is not None
    with pytest.raises(BadInput, match="another process"):
        begin(config, folder, problems("a"))
    os.close(descriptor)
    begin(config, folder, problems("a"))


def test_changed_data_is_refused_on_resume(tmp_path: Path) -> None:
    config = configure(tmp_path)
    begin(config, tmp_path / "one", problems("a", "b"))
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    with pytest.raises(BadInput, match="other problems"):
        begin(config, tmp_path / "two", problems("a", "c"))


@pytest.mark.parametrize(
    ("parts", "named"),
    [(["train", "benchmarks"], "eval.benchmarks[1]: "), (["heldout", "benchmarks"], "data.source: ")],
)
def test_a_changed_benchmark_is_refused_by_its_name(parts: list[str], named: str, tmp_path: Path) -> None:
    """Unless the held-out problems have changed too: no benchmark has those that choose the result."""
    config = configure(tmp_path, "eval.benchmarks=[{source: 'file:easy.csv'}, {source: 'file:hard.csv'}]")
    one, other = (problems(name).train for name in "ab")
    begun = ProblemSet(one, one, {}, benchmarks=(EvaluationSet("easy", 2, one), EvaluationSet("hard", 2, one)))
    now = {"train": other, "heldout": other, "benchmarks": (begun.benchmarks[0], EvaluationSet("hard", 2, other))}
    begin(config, tmp_path / "one", begun)
    with pytest.raises(BadInput, match=re.escape(named)):
        begin(config, tmp_path / "one", replace(begun, **{part: now[part] for part in parts}))  # type: ignore[arg-type]


def test_finished_run_is_refused_unless_it_may_be_overwritten(tmp_path: Path) -> None:
    """The old run is renamed as a whole."""
    leave(tmp_path, "completed")
    with pytest.raises(BadInput, match=r"finished.*run\.overwrite=true"):
        find_folder(configure(tmp_path))
    config = configure(tmp_path, "run.overwrite=true")
    (tmp_path / "quickstart" / "checkpoints").mkdir()
    begin(config, find_folder(config), problems("a"))
    left = sorted(path.name for path in (tmp_path / "quickstart").iterdir())
    assert left == [".microbudget-rl", "config.yaml", "identity.json", "problems.digest"]
    old = sorted(path.name for path in (tmp_path / "quickstart.old-1").iterdir())
    assert old == [".microbudget-rl", "checkpoints", "config.yaml", "summary.json"]


@pytest.mark.parametrize("overwrite", ["true", "false"])
@pytest.mark.parametrize("marked", [True, False])
def test_new_run_takes_no_file_that_was_there(tmp_path: Path, overwrite: str, marked: bool) -> None:
    """Not even where the settings of a marked run are gone. An evaluation before the first run belongs to it."""
    folder, config = tmp_path / "quickstart", configure(tmp_path, f"run.overwrite={overwrite}")
    (folder / "evaluation").mkdir(parents=True)
    if marked:
        folders.mark(folder, "run")
        begin(config, find_folder(config), problems("a"))
        assert (folder / "evaluation").exists()
        (folder / "config.yaml").unlink()
    (folder / "thesis.tex").write_text("years")
    if marked:
        begin(config, find_folder(config), problems("a"))
    else:
        with pytest.raises(BadInput, match=r"run\.name=OTHER"):
            find_folder(config)
    (thesis,) = tmp_path.rglob("thesis.tex")
    assert (thesis.read_text(), thesis.parent == folder) == ("years", not marked)


@pytest.mark.parametrize(
    ("status", "begun", "asked", "hint"),
    [
        ("budget_exhausted", [], ["budget.minutes=20"], None),
        ("budget_exhausted", [], ["budget.updates=80"], "budget.minutes=16"),
        ("completed", ["budget.updates=40"], ["budget.updates=80"], None),
        ("completed", ["budget.updates=40"], [], None),
        ("completed", ["budget.updates=40"], ["budget.updates=40", "budget.minutes=20"], "budget.updates=80"),
        ("completed", [], ["budget.minutes=20"], "run.name=OTHER"),  # nothing was left to learn
        ("completed", ["budget.updates=41"], ["budget.updates=80"], "run.name=OTHER"),
    ],
)
def test_finished_run_goes_on_with_more_of_what_ended_it(
    status: str, begun: list[str], asked: list[str], hint: str | None, tmp_path: Path
) -> None:
    leave(tmp_path, status, "learner.schedule=constant", *begun, budget_s=480.0, updates=40)
    config = configure(tmp_path, "learner.schedule=constant", *asked)
    if hint is None:
        begin(config, find_folder(config), problems("a"))
        assert not (tmp_path / "quickstart" / "summary.json").exists()
        return
    with pytest.raises(BadInput, match=rf"finished.*run\.overwrite=true.*{hint}") as caught:
        find_folder(config)
    assert ("budget." in str(caught.value)) == ("budget." in hint)


def test_schedule_that_has_ended_at_zero_does_not_rise_again(tmp_path: Path) -> None:
    more = ["learner.schedule=linear", "budget.minutes=20"]
    leave(tmp_path, "budget_exhausted", "learner.schedule=linear", "learner.final_rate=0", budget_s=480.0, updates=40)
    with pytest.raises(BadInput, match=r"learner\.schedule.*lora\.start_from=.*latest/adapter"):
        find_folder(configure(tmp_path, *more, "learner.final_rate=0"))
    shutil.rmtree(tmp_path / "quickstart")
    leave(tmp_path, "budget_exhausted", "learner.schedule=linear", budget_s=480.0, updates=40)
    assert find_folder(configure(tmp_path, *more)) == tmp_path / "quickstart"


def test_origin_repeats_the_command_without_what_is_private(monkeypatch: pytest.MonkeyPatch) -> None:
    given = ["conf=mine", "data.source=file:my problems.csv", """data.system='$5' is "much\""""]
    found = origin([*given, "run.on_end=curl secret"], "CPU, 2 cores")
    assert shlex.split(found.command) == ["python", "launch/run.py", *given]
    assert found.machine == "CPU, 2 cores"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d[+-]\d\d:\d\d", found.started)
    assert re.fullmatch(r"([0-9a-f]{10}\+?)?", found.commit)
    monkeypatch.setattr(preparation, "PROJECT", ROOT / "docs")  # as a copy that is installed in another's checkout
    assert commit() == ""
