import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from actors.messages import Problem
from conf.errors import BadInput
from conf.load import dump
from conf.schema import Config
from conf.settings import changed
from rewards.problems.__main__ import main
from rewards.problems.pass_rates import earlier_pass_rates
from tests.rewards.problems.rows import SUMS, Loader, write_jsonl

PROBLEMS = [Problem(name, "", (), "") for name in ("a", "b", "c")]
GOOD = {"tries": 40, "rate": 0.75, "first": 0.25, "version": 30}


def write_run(rows: list[dict[str, Any]], **settings: Any) -> Config:
    """Write an earlier run with these pass rates into the working folder. Return settings that begin with it."""
    Path("earlier").mkdir()
    given = {"model.pin": "a" * 40, "rollout.samples_per_problem": 8}
    (Path("earlier") / "config.yaml").write_text(dump(changed(Config(), given | settings)))
    write_jsonl(Path("earlier/pass-rates.jsonl"), rows)
    return changed(Config(), given | {"data.pass_rates": "earlier"})


def test_known_problems_are_carried_over_with_their_weight() -> None:
    config = write_run([{"problem": name, **GOOD} for name in ("a", "b", "elsewhere")])
    for weight, tries in ((1.0, 16), (0.3, 5), (0.01, 1)):
        found = earlier_pass_rates(changed(config, {"data.pass_rates_weight": weight}), PROBLEMS)
        expected = [(name, tries, 0.75, 0.75, 0) for name in ("a", "b")]
        assert [(row.problem, row.tries, row.rate, row.first, row.version) for row in found] == expected


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"rate": 1.5}, "rate"),
        ({"rate": float("nan")}, "rate"),
        ({"rate": -0.1}, "rate"),
        ({"tries": -8}, "tries"),
        ({"tries": 0}, "tries"),
        ({"tries": 7.5}, "tries"),
        ({"tries": 10**30}, "tries"),
        ({"version": -1}, "version"),
        ({"problem": 7}, "problem"),
        ({"problem": "b"}, "twice"),
    ],
)
def test_damaged_rows_are_refused(change: dict[str, Any], word: str) -> None:
    config = write_run([{"problem": "b", **GOOD}, {"problem": "a", **GOOD, **change}])
    with pytest.raises(BadInput, match=word):
        earlier_pass_rates(config, PROBLEMS)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"model.pin": "b" * 40}, "model.pin"),
        ({"model.pin": "", "model.path": "else/where"}, "model.path"),
        ({"reward.format": 0.7}, "reward.format"),
        ({"lora.start_from": "runs/a"}, "lora.start_from"),
        ({"data.chat_settings": {"enable_thinking": False}}, "data.chat_settings"),
        ({"data.source": "file:other.csv"}, ""),
        ({"reward.workers": 3}, ""),
    ],
)
def test_another_model_or_reward_is_refused_unless_its_tries_count_less(settings: dict[str, Any], named: str) -> None:
    config = write_run([{"problem": "a", **GOOD}], **settings)
    if named:
        with pytest.raises(BadInput, match=named):
            earlier_pass_rates(config, PROBLEMS)
        config = changed(config, {"data.pass_rates_weight": 0.5})
    assert len(earlier_pass_rates(config, PROBLEMS)) == 1


def test_a_run_that_knows_nothing_here_is_refused() -> None:
    assert earlier_pass_rates(Config(), PROBLEMS) == []
    config = write_run([{"problem": "elsewhere", **GOOD}])
    assert earlier_pass_rates(config) == []
    with pytest.raises(BadInput, match="none of the training problems"):
        earlier_pass_rates(config, PROBLEMS)
    Path("earlier/pass-rates.jsonl").unlink()
    for given in ("earlier", "nowhere", "earlier/config.yaml"):
        with pytest.raises(BadInput, match=given):
            earlier_pass_rates(changed(config, {"data.pass_rates": given}))


def test_a_large_file_is_read_row_by_row() -> None:
    rows = [{"problem": name, **GOOD, "note": "…" * 1000} for name in ("a", *map(str, range(2000)))]
    config, found = write_run(rows), list[int]()
    for problems in (None, PROBLEMS):
        tracemalloc.start()
        found.append(len(earlier_pass_rates(config, problems)))
        (_, most), _ = tracemalloc.get_traced_memory(), tracemalloc.stop()
        assert most < Path("earlier/pass-rates.jsonl").stat().st_size / 4
    assert found == [0, 1]


def test_a_line_that_is_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("conf.parsing.LONGEST_LINE", 150)
    config = write_run([{"problem": "a", **GOOD}, {"problem": "b" * 100, **GOOD}])
    with pytest.raises(BadInput, match=r"line 2 .* 150 characters"):
        earlier_pass_rates(config, PROBLEMS)


def test_preview_shows_the_histogram(
    loader: Loader, tiny_model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_jsonl(Path("rows.jsonl"), SUMS)
    names = [problem.id for problem in loader.load({"data.source": "file:rows.jsonl", "eval.problems": 0}).train]
    rows = [{"problem": name, **GOOD, "rate": number % 3 / 2} for number, name in enumerate(names)]
    write_run([*rows, {"problem": "elsewhere", **GOOD}], **{"model.path": str(tiny_model)})
    given = [f"model.path={tiny_model}", "eval.problems=0", "data.pass_rates=earlier"]
    assert main(["file:rows.jsonl", *given]) == 0
    said = capsys.readouterr().out
    assert [
        word for word in ("Pass rates of 30 ", "10 never solved", "10 at the edge", " 0 often") if word not in said
    ] == []
    Path("earlier/pass-rates.jsonl").write_text(json.dumps(rows[0]).replace("0.0", "NaN") + "\n")
    assert main(["file:rows.jsonl", *given]) == 2
