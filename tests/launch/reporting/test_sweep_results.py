from dataclasses import replace
from pathlib import Path

from microbudget_rl.launch.reporting.comparison import by_settings
from microbudget_rl.launch.reporting.history import read_sweep
from microbudget_rl.launch.reporting.sweep_results import caveats, concerns, conclude, runs, shared
from tests.run_folders import ranked, swept, write_sweep


def plain(text: str) -> str:
    return text.replace("\N{NO-BREAK SPACE}", " ")


def test_the_lead_quotes_a_shown_comparison_not_a_picked_one(tmp_path: Path):
    """The first comparison shows nothing; at the best learning rates there would be a difference of 14."""
    results = {(8, 1e-5): 9, (256, 1e-5): 10, (8, 1e-4): 4, (256, 1e-4): 23}
    each = {f"r{r}-{lr}": {"rank": r, "learning_rate": lr, "after": after} for (r, lr), after in results.items()}
    again = {f"{name}-1": {**of, "seed": 1, "after": of["after"] - 1} for name, of in each.items()}
    sweep = swept(tmp_path / "two", **each, **again)
    quoted = "at learning rate 1e-4, rank 256 ends 79.2 points"
    assert conclude(sweep).startswith(f"Rank matters here in part: {quoted}")
    one = conclude(swept(tmp_path / "one", **each))
    assert (one.startswith(f"Undecided (one seed): {quoted}"), "2\xa0seeds of each would" in one) == (True, True)
    also, picked, *_ = caveats(sweep)
    assert also.startswith("Also each at its best learning rate, rank 256 (1e-4) ends")
    assert "At an end of the range: rank 8 (1e-5), 256 (1e-4);" in picked


def test_runs_without_result_are_named_and_in_no_mean(tmp_path: Path):
    some = ranked(4, r8=6, r64=20)
    some["r8-1"] |= {"after": None, "status": "interrupted"}
    some["r8-2"] |= {"after": None, "status": "failed"}
    said = plain(conclude(swept(tmp_path / "some", **some)))
    assert said.startswith("Rank matters here: ")
    assert said.endswith(": 2 of 4 runs of rank 8 (interrupted, failed).")
    few = {"r8": {"rank": 8}, "r64": {"rank": 64, "status": "pending"}}
    sweep = swept(tmp_path / "few", **few)
    assert [len(repeats.values) for repeats in by_settings(sweep)] == [1, 0]
    assert conclude(sweep).startswith("No conclusion")


def test_pass_at_1_says_nothing_of_a_reward_that_weighs_no_answer(tmp_path: Path):
    sweep = swept(tmp_path, **ranked(3, r8=6, r64=20))
    runs = tuple(replace(run, config=run.config | {"reward.accuracy": 0.0}) for run in sweep.runs)
    assert conclude(replace(sweep, runs=runs)).startswith("No conclusion: the reward of 6")


def test_what_differs_beside_the_axis_is_a_caveat(tmp_path: Path):
    alike = swept(tmp_path / "alike", a={"rank": 8}, b={"rank": 64, "updates": 36})
    assert not any("Budgets" in note or "updates" in note for note in caveats(alike))
    sweep = swept(
        tmp_path / "differing",
        a={"rank": 8, "updates": 40, "budget_s": 240.0},
        b={"rank": 8, "seed": 1, "updates": 44, "budget_s": 240.0},
        c={"rank": 256, "updates": 23, "budget_s": 360.0, "versions": {"torch": "2.12.0"}},
        d={"rank": 256, "seed": 1, "updates": 10, "budget_s": 240.0, "after": None, "status": "failed"},
    )
    said = plain(" ".join(caveats(sweep)))
    for caveat in ("from 4 min (a) to 6 min (c)", "updates differ by rank, 42 (8), 23 (256)", "(0.125, 4)", "one seed"):
        assert caveat in said
    assert [plain(row[-2]) for row in runs(sweep).body][:3:2] == ["9.83 min of 4 min", "9.83 min of 6 min"]
    assert [*shared(sweep)][:2] == ["model", "data"]
    assert not {"rank", "budget", "torch"} & shared(sweep).keys()


def test_every_run_with_trouble_has_a_line(tmp_path: Path):
    each = {"r8": {"rank": 8}, "r64": {"rank": 64, "ledger": {"counts": {"deaths/rollout": 2}}}, "r256": {"rank": 256}}
    folder = write_sweep(tmp_path / "sweep", each)
    (folder / "r256" / "summary.json").write_text("{")
    found = concerns(read_sweep(folder))
    assert [row[0] for row in found.body] == ["r64", "r256"]
    assert "2\N{NO-BREAK SPACE}failures" in found.body[0][1]
    assert "summary.json" in found.body[1][1]
