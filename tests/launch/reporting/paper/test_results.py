import json
import re
from pathlib import Path
from typing import Any

import pytest

from microbudget_rl.conf.errors import BadInput
from microbudget_rl.launch.reporting import write
from microbudget_rl.launch.reporting.history import read_sweep
from microbudget_rl.launch.reporting.paper.conclusion import conclude
from microbudget_rl.launch.reporting.paper.results import read_results
from microbudget_rl.launch.reporting.paper.tables import entropies, passed
from tests.run_folders import N, edited, write_benchmarked

pytestmark = pytest.mark.long

MODEL = "owner/tiny"
FEW = {"sums": 8}


def test_tables_have_both_ours_and_the_papers(tmp_path: Path):
    model = "agentica-org/DeepScaleR-1.5B-Preview"
    gains = {8: 0.05, 64: 0.1, 256: 0.2}
    sweep = read_sweep(write_benchmarked(tmp_path / "sweep", {model: gains}, benchmarks={"aime24": 30}, seeds=(0, 1)))
    results = read_results(sweep)
    assert results[0].chosen
    assert results[0].chosen.rank == 64  # by the validation problems: rank 256 gains more
    base, trained = passed(sweep, results)[0].body
    assert (base[1], base[2][:4], base[3], base[7]) == ("base", "30.0", "28.9ᵃ", "62.5ᵃᵇ")
    assert (trained[1], trained[2][:4], trained[3], trained[7]) == ("rank 64", "41.0", "40.0", "70.0")
    ends = [float(end) for cell in trained[2::2] for end in re.findall(r"[\d.]+", cell)[1:]]
    assert all(high - low > 10 for low, high in zip(ends[::2], ends[1::2], strict=True))  # though seeds agree in pass@8
    assert [cell[:5] for cell in entropies(results).body[0][1::2]] == ["−37.4", "−66.4", "−86.3"]
    assert entropies(results).body[0][2::2] == ("−6.7", "−2.7", "−27.0")


def test_without_validation_nothing_is_chosen_and_unfinished_evaluations_are_missing(tmp_path: Path):
    folder = tmp_path / "sweep"
    known: dict[str, Any] = {"validated": False, "unfinished": ["tiny-r8-seed0"], "benchmarks": FEW}
    write_benchmarked(folder, {MODEL: {1: 0.1, 8: 0.2, 64: 0.2}}, **known)
    partial = folder / "tiny-r64-seed0" / "evaluation" / "samples" / "eval-adapter-sums.jsonl"
    partial.write_text("".join(partial.read_text().splitlines(keepends=True)[:-1]))
    sweep = read_sweep(folder)
    results = read_results(sweep)
    assert results[0].chosen is None
    base, first, *rest = passed(sweep, results)[0].body
    assert [row[1] for row in (base, first, *rest)] == ["base", "rank 1", "rank 8", "rank 64"]
    assert [row[2:] for row in rest] == [("–", "–", "–")] * 2
    assert base[2].startswith("29.7 (")


def test_models_are_told_apart_by_recipe(tmp_path: Path):
    """Runs that have not begun know only their recipe, and the sweep names models by recipes."""
    folder = write_benchmarked(tmp_path / "sweep", {"Qwen/Qwen3-0.6B": {8: 0.1}}, benchmarks=FEW)
    with edited(folder / "sweep.json") as document:
        document["runs"][0]["overrides"] = {"conf": "qwen3", "lora.rank": 8}
        later = {"name": "math-r64", "overrides": {"conf": "math", "lora.rank": 64}, "status": "pending"}
        document["runs"].append(later)
    sweep = read_sweep(folder)
    assert sweep.axes == {"model.path": ("Qwen/Qwen3-0.6B", "Qwen/Qwen2.5-Math-1.5B"), "lora.rank": (8, 64)}
    assert [(each.kind, bool(each.base)) for each in read_results(sweep)] == [
        ("mathematical", True),
        ("mathematical", False),
    ]
    assert write(folder).exists()


def test_models_of_one_short_name_are_told_apart(tmp_path: Path):
    models = {"here/DeepScaleR-1.5B-Preview": {1: 0.1}, "there/DeepScaleR-1.5B-Preview": {1: 0.3}}
    for owner, (path, gains) in zip("ab", models.items(), strict=True):
        write_benchmarked(tmp_path / owner, {path: gains}, benchmarks={"aime24": 30})
    with edited(tmp_path / "a" / "sweep.json") as first, edited(tmp_path / "b" / "sweep.json") as second:
        for part, entry in [("runs", second["runs"][0]), ("bases", second["bases"][0])]:
            (tmp_path / "b" / entry["name"]).rename(tmp_path / "a" / f"other-{entry['name']}")
            first[part].append({**entry, "name": f"other-{entry['name']}"})
    sweep = read_sweep(tmp_path / "a")
    results = read_results(sweep)
    assert [each.name for each in results] == [*models]
    assert all(name in conclude(results) for name in models)


@pytest.mark.parametrize(
    ("run", "part", "changes", "word"),
    [
        ("base-tiny", "benchmarks", {"n": 4}, "n=16"),
        ("tiny-r8-seed0", "benchmarks", {"limit": 4}, "limit"),
        ("tiny-r8-seed0", "benchmarks", {"name": "other"}, "lacks sums"),
        ("tiny-r8-seed0", "protocol", {"temperature": 1.0}, "temperature"),
        ("tiny-r8-seed0", "protocol", {"settings": {"data.template": "?"}}, "template"),
    ],
)
def test_what_cannot_be_compared_is_refused(tmp_path: Path, run: str, part: str, changes: dict[str, Any], word: str):
    folder = write_benchmarked(tmp_path / "sweep", {MODEL: {1: 0.1, 8: 0.2}}, benchmarks=FEW)
    with edited(folder / run / "evaluation" / "evaluation.json") as document:
        (document["protocol"] if part == "protocol" else document["benchmarks"][0]).update(changes)
    with pytest.raises(BadInput, match=word):
        write(folder)


def test_runs_of_a_model_with_other_validation_problems_are_refused(tmp_path: Path):
    """Another tokenizer may leave out other problems."""
    models = {MODEL: {1: 0.1, 8: 0.2}, "owner/other": {1: 0.1}}
    folder = write_benchmarked(tmp_path / "sweep", models, benchmarks=FEW)
    for run, chose in {"tiny-r1-seed0": ["a", "b"], "tiny-r8-seed0": ["a", "b"], "other-r1-seed0": ["c"]}.items():
        (folder / run / "selection.json").write_text(json.dumps(dict.fromkeys(chose, ("", ""))))
    assert write(folder).exists()
    (folder / "tiny-r8-seed0" / "selection.json").write_text(json.dumps({"a": ("", ""), "c": ("", "")}))
    with pytest.raises(BadInput, match="validation"):
        write(folder)


def test_base_models_count_only_the_problems_of_their_policies(tmp_path: Path):
    """The evaluations of the runs lack the validation problems, here the two easiest; the base model's has all."""
    folder = write_benchmarked(tmp_path / "sweep", {MODEL: {1: 0.0}}, benchmarks={"sums": 10})
    file = folder / "tiny-r1-seed0" / "evaluation" / "evaluation.json"
    with edited(file) as document:
        document["benchmarks"][0]["problems"] = 8
    rows = file.parent / "samples" / "eval-adapter-sums.jsonl"
    rows.write_text("".join(rows.read_text().splitlines(keepends=True)[2 * N :]))
    (table,) = passed(sweep := read_sweep(folder), read_results(sweep))
    assert "8 problems" in table.caption
    base, trained = (row[2] for row in table.body)
    assert base == trained
    assert write(folder).exists()
