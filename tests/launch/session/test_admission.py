import json
import os
import re
import shlex
from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from microbudget_rl.actors.coordinator.rules.selection import SCORE
from microbudget_rl.actors.messages import EvaluationSet, Problem, ProblemSet
from microbudget_rl.actors.storage import folders, run_folder
from microbudget_rl.actors.storage.documents import LedgerRecord, PolicyScores
from microbudget_rl.actors.storage.files import lock, replace_text
from microbudget_rl.actors.storage.run_folder import RunFolder
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.load import dump, load
from microbudget_rl.conf.schema import Config
from microbudget_rl.conf.settings import changed
from microbudget_rl.launch.hardware.machine import GIB, Machine
from microbudget_rl.launch.session import preparation
from microbudget_rl.launch.session.admission import admit, begin, resolve_model, take_run
from microbudget_rl.launch.session.preparation import commit, origin
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


def start(config: Config, problems: ProblemSet) -> list[str]:
    """Begin a run as its command does. Return the changed settings."""
    folder = admit(config)
    take_run(config, folder)
    return begin(config, folder, problems)


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
):
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


@pytest.mark.long
def test_all_linear_stands_for_the_modules_of_the_family(tmp_path: Path):
    from tests.learner.model.families import BY_NAME

    BY_NAME["Gemma 4"].configuration.save_pretrained(tmp_path)
    config = configure(tmp_path, f"model.path={tmp_path}", "lora.target_modules=[all-linear]")
    machine = Machine("", (0,), GIB, 0, 0, 1e10, {"bfloat16": 1e10})
    assert resolve_model(config, machine).lora.target_modules == load(["conf=gemma4_e2b"]).lora.target_modules


def test_start_that_ends_gives_the_run_before_its_name_back(tmp_path: Path):
    folder, aside = tmp_path / "one", tmp_path / "one.old-1"
    folders.claim(folder, "run")
    aside.mkdir()
    for before in (None, aside):  # the undoing of the last claim comes first
        folders.give_back(folder, before)
    assert [*tmp_path.iterdir()] == [folder]


def test_changes_are_listed_without_the_place_of_the_run(tmp_path: Path):
    (tmp_path / "old").mkdir()
    leave(tmp_path / "old", "interrupted")
    (tmp_path / "old").rename(tmp_path / "new")
    changed = configure(tmp_path / "new", "budget.minutes=20", "checkpoint.every=1", "learner.world_size=2")
    listed = ["budget.minutes=8.0 → 20.0", "checkpoint.every=20 → 1", "learner.world_size=None → 2"]
    assert start(changed, problems("a")) == listed


@pytest.mark.parametrize(
    ("status", "begun", "asked", "said"),
    [
        ("interrupted", "model.pin=" + "a" * 40, f"lora.rank=8 model.pin={'b' * 40}", "not 8.*also.*model.pin"),
        ("interrupted", "validation.every=0", "validation.every=5", "validation.every=0, not 5"),
        ("interrupted", "validation.every=5", "validation.every=0", "validation.every=5, not 0"),
        ("interrupted", "validation.every=5", "validation.every=6", ""),
        ("budget_exhausted", "", "budget.updates=80", "finished.*run.overwrite=true.*budget.minutes=16"),
        ("budget_exhausted", "learner.schedule=linear", "budget.minutes=20", ""),
        (
            "budget_exhausted",
            "learner.schedule=linear learner.final_rate=0",  # which would rise again
            "budget.minutes=20",
            "learner.schedule.*lora.start_from=.*latest/adapter",
        ),
        ("completed", "budget.updates=40", "budget.updates=80", ""),
        ("completed", "budget.updates=40", "budget.updates=null", ""),
        ("completed", "budget.updates=40", "budget.minutes=20", "finished.*budget.updates=80"),
        ("completed", "", "budget.minutes=20", "finished.*run.name=OTHER"),  # nothing was left to learn
        ("completed", "budget.updates=41", "budget.updates=80", "finished.*run.name=OTHER"),
        ("completed", "validation.every=1 validation.patience=2", "validation.patience=3", "validation.patience=6"),
        ("completed", "validation.every=1 validation.patience=2", "validation.patience=4", ""),
        ("completed", "validation.every=1 validation.patience=2", "validation.patience=0", ""),
    ],
)
def test_a_run_goes_on_as_it_began_and_a_finished_one_with_more_of_what_ended_it(
    status: str, begun: str, asked: str, said: str, tmp_path: Path
):
    before = dict(setting.split("=") for setting in ["learner.schedule=constant", *begun.split()])
    after = before | dict(setting.split("=") for setting in asked.split())
    leave(tmp_path, status, *map("=".join, before.items()), budget_s=480.0, updates=40)
    rows = [{"update": update, "version": update, SCORE: score} for update, score in enumerate((0.5, 0, 0, 0), start=1)]
    (tmp_path / "quickstart" / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = configure(tmp_path, *map("=".join, after.items()))
    if said:
        with pytest.raises(BadInput, match=said):
            admit(config)
    else:
        start(config, problems("a"))
        assert not (tmp_path / "quickstart" / "summary.json").exists()


def leave_spent(folder: Path, spent_s: float, start_s: float, evaluate_s: float) -> None:
    """Leave the times of a run beside its other files."""
    run = RunFolder(folder / "quickstart")
    run.write_spent(spent_s, LedgerRecord(start_s=start_s))
    if evaluate_s:
        round_s, n = evaluate_s / configure(folder).eval.n, configure(folder).eval.n
        figures = {"pass@1": 0.5, "n": n, "problems": 9, "ci95": [0, 1], "mean_length": 8, "truncated": 0}
        run.write_evaluation("base", 0, PolicyScores.model_validate({**figures, "round_seconds": round_s}))


@pytest.mark.parametrize(("start_s", "evaluate_s"), [(0.0, 0.0), (40.0, 0.0), (40.0, 16.0), (40.0, 90.0)])
def test_a_run_is_resumed_if_its_start_and_its_end_fit_into_the_rest(start_s: float, evaluate_s: float, tmp_path: Path):
    leave(tmp_path, "interrupted")
    leave_spent(tmp_path, 1.0, start_s, evaluate_s)
    admit(configure(tmp_path))
    leave_spent(tmp_path, 475.0 - start_s - evaluate_s / 2, start_s, evaluate_s)
    with pytest.raises(BadInput, match=r"run\.overwrite=true") as caught:
        admit(configure(tmp_path))
    minutes = int(re.findall(r"budget\.minutes=(\d+)", str(caught.value))[0])
    admit(configure(tmp_path, f"budget.minutes={minutes}"))
    with pytest.raises(BadInput, match=f"budget.minutes={minutes}"):
        admit(configure(tmp_path, f"budget.minutes={minutes - 1}"))


def problems(*ids: str, selection: str = "") -> ProblemSet:
    made = [Problem(name, "", (1,), "") for name in (*ids, *selection)]
    return ProblemSet(tuple(made[: len(ids)]), (), {}, selection=tuple(made[len(ids) :]))


@pytest.mark.parametrize("written", range(4))
def test_a_kill_while_a_run_begins_does_not_keep_the_same_command_from_beginning(
    written: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The process is killed before one of the files of `write_config` is in place; others are whole."""
    config, files = configure(tmp_path, "validation.every=5"), count()

    def replace(file: Path, text: str) -> None:
        if next(files) == written:
            file.with_name(f".{file.name}.tmp").touch()
            raise KeyboardInterrupt
        replace_text(file, text)

    monkeypatch.setattr(run_folder, "replace_text", replace)
    with suppress(KeyboardInterrupt):
        start(config, problems("a", selection="b"))
    start(config, problems("a", selection="b"))
    assert RunFolder(tmp_path / "quickstart").selection().keys() == {"b"}


def test_two_processes_do_not_share_a_run(tmp_path: Path):
    config = configure(tmp_path)
    descriptor = lock(tmp_path / "quickstart")
    assert descriptor is not None
    with pytest.raises(BadInput, match="another process"):
        start(config, problems("a"))
    os.close(descriptor)
    start(config, problems("a"))


@pytest.mark.parametrize(
    ("parts", "named"),
    [
        (["train"], "data.source: "),
        (["train", "benchmarks"], "eval.benchmarks[1]: "),
        (["heldout", "benchmarks"], "data.source: "),  # no benchmark has those that choose the result
    ],
)
def test_changed_data_is_refused_on_resume_by_its_name(parts: list[str], named: str, tmp_path: Path):
    config = configure(tmp_path, "eval.benchmarks=[{source: 'file:easy.csv'}, {source: 'file:hard.csv'}]")
    one, other = (problems(name).train for name in "ab")
    begun = ProblemSet(one, one, {}, benchmarks=(EvaluationSet("easy", 2, one), EvaluationSet("hard", 2, one)))
    changes = {"train": other, "heldout": other, "benchmarks": (begun.benchmarks[0], EvaluationSet("hard", 2, other))}
    start(config, begun)
    with pytest.raises(BadInput, match=re.escape(named)):
        start(config, replace(begun, **{part: changes[part] for part in parts}))  # type: ignore[arg-type]


@pytest.mark.parametrize("lost", ["", "config.yaml"])
def test_a_run_that_is_overwritten_or_has_lost_its_settings_is_renamed_as_a_whole(lost: str, tmp_path: Path):
    leave(tmp_path, "completed")
    folder = tmp_path / "quickstart"
    (folder / "thesis.tex").write_text("years")
    (folder / (lost or "thesis.txt")).unlink(missing_ok=True)
    start(configure(tmp_path, f"run.overwrite={'false' if lost else 'true'}"), problems("a"))
    left, old = ({path.name for path in each.iterdir()} for each in (folder, tmp_path / "quickstart.old-1"))
    assert left == {".microbudget-rl", "config.yaml", "identity.json", "problems.digest"}
    assert old == {".microbudget-rl", "config.yaml", "summary.json", "thesis.tex"} - {lost}


def test_origin_repeats_the_command_without_what_is_private(monkeypatch: pytest.MonkeyPatch):
    given = ["conf=mine", "data.source=file:my problems.csv", """data.system='$5' is "much\""""]
    found = origin([*given, "run.on_end=curl secret"], "CPU, 2 cores")
    assert shlex.split(found.command) == ["python", "launch/run.py", *given]
    assert found.machine == "CPU, 2 cores"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d[+-]\d\d:\d\d", found.started)
    assert re.fullmatch(r"([0-9a-f]{10}\+?)?", found.commit)
    monkeypatch.setattr(preparation, "ROOT", ROOT / "docs")  # as a copy that is installed in another's checkout
    assert commit() == ""
