from pathlib import Path

from launch.reporting.comparison import contrasts, groups
from launch.reporting.history import read_sweep
from launch.reporting.sweep_tables import runs, shared
from launch.reporting.sweep_verdict import best_rate_sentences, caveats, verdict
from tests.run_folders import ranked, swept, write_sweep


def test_rank_that_matters_is_told_from_one_that_does_not(tmp_path: Path) -> None:
    def run(rank: int, seed: int, after: int) -> dict[str, int]:
        return {"rank": rank, "seed": seed, "after": after}

    apart = {f"r{r}-{s}": run(r, s, (6 if r == 8 else 18) + s % 2) for r in (8, 256) for s in range(3)}
    alike = {f"r{r}-{s}": run(r, s, 12 + 3 * (s % 2)) for r in (8, 256) for s in range(3)}
    answers = [
        verdict(read_sweep(write_sweep(tmp_path / name, cells))).replace("\N{NO-BREAK SPACE}", " ")
        for name, cells in (("apart", apart), ("alike", alike))
    ]
    assert answers[0].startswith("Rank matters here: rank 256 ends 50.0 points above rank 8 (95 % interval")
    assert answers[1].startswith("No effect of the rank can be shown here: rank 256 ends level with rank 8 (95 %")


def test_a_rank_in_the_middle_is_seen(tmp_path: Path) -> None:
    sweep = swept(tmp_path, **ranked(3, r8=6, r64=20, r256=6))
    found = contrasts(sweep)
    assert [(c.low.settings["lora.rank"], c.high.settings["lora.rank"], c.difference.shown) for c in found] == [
        (8, 64, True),
        (8, 256, False),
        (64, 256, True),
    ]
    said = verdict(sweep).replace("\N{NO-BREAK SPACE}", " ")
    assert said.startswith("Rank matters here: rank 64 ends 58.3 points above rank 8 (95 % interval")
    assert "p < 0.001, both for 3 comparisons together" in said


def test_lead_quotes_what_is_shown_and_not_what_was_picked(tmp_path: Path) -> None:
    """The first comparison shows nothing; at the best learning rates there would be a difference of 14."""
    results = {(8, 1e-5): 9, (256, 1e-5): 10, (8, 1e-4): 4, (256, 1e-4): 23}
    cells = {f"r{r}-{lr}": {"rank": r, "learning_rate": lr, "after": after} for (r, lr), after in results.items()}
    sweep = swept(tmp_path, **cells)
    assert verdict(sweep).startswith(
        "Rank matters here in part, as far as one seed each can tell: at learning rate 1e-4, rank 256 ends 79.2 points"
    )
    assert [said.partition(" ends")[0] for said in best_rate_sentences(sweep)] == [
        "each at its best learning rate, rank 256 (1e-4)"
    ]


def test_lead_rather_quotes_what_several_seeds_show(tmp_path: Path) -> None:
    cells = {name: arguments | {"learning_rate": 1e-4} for name, arguments in ranked(3, r8=6, r64=14).items()}
    cells |= {f"r{rank}": {"rank": rank, "learning_rate": 1e-5, "after": rank // 3} for rank in (8, 64)}
    sweep = swept(tmp_path, **cells)
    assert min(contrasts(sweep)[:2], key=lambda contrast: contrast.difference.p or 0.0).of_one_seed
    assert verdict(sweep).startswith("Rank matters here: at learning rate 1e-4, rank 64 ends 33.3 points above rank 8")


def test_lead_says_who_did_not_survive(tmp_path: Path) -> None:
    cells = ranked(3, r8=6, r64=20)
    cells["r8-1"] |= {"after": None, "status": "interrupted"}
    cells["r8-2"] |= {"after": None, "status": "failed"}
    said = verdict(swept(tmp_path, **cells)).replace("\N{NO-BREAK SPACE}", " ")
    assert said.startswith("Rank matters here: ")
    assert said.endswith("Without a final evaluation, and so left out: 2 of 3 runs of rank 8 (interrupted, failed).")


def test_cells_without_result_are_in_no_mean_but_named(tmp_path: Path) -> None:
    cells = {
        "r8-0": {"rank": 8, "seed": 0},
        "r8-1": {"rank": 8, "seed": 1, "after": None, "status": "failed"},
        "r64-0": {"rank": 64, "seed": 0, "status": "pending"},
    }
    sweep = read_sweep(write_sweep(tmp_path / "sweep", cells))
    assert [len(group.values) for group in groups(sweep)] == [1, 0]
    assert "No verdict" in verdict(sweep)
    assert "1 of 3" in verdict(sweep)


def test_who_makes_more_updates_in_the_same_time_is_said(tmp_path: Path) -> None:
    alike = read_sweep(write_sweep(tmp_path / "alike", {"a": {"rank": 8}, "b": {"rank": 64, "updates": 36}}))
    assert not any(note.startswith("Updates differ") for note in caveats(alike))
    cells = {
        "a": {"rank": 8, "updates": 40},
        "b": {"rank": 8, "seed": 1, "updates": 44},
        "c": {"rank": 256, "updates": 23},
        "d": {"rank": 256, "seed": 1, "updates": 10, "after": None, "status": "failed"},
    }
    differing = caveats(read_sweep(write_sweep(tmp_path / "differing", cells)))
    (said,) = (note for note in differing if note.startswith("Updates differ"))
    assert said.startswith("Updates differ by the rank, in the mean 42 (8), 23 (256): ")


def test_best_learning_rate_at_an_end_of_the_range_is_said(tmp_path: Path) -> None:
    solved = {(8, 1e-4): 10, (8, 2e-4): 14, (8, 4e-4): 12, (64, 1e-4): 10, (64, 2e-4): 12, (64, 4e-4): 16}
    cells = {
        f"r{rank}-{rate}": {"rank": rank, "learning_rate": rate, "after": after}
        for (rank, rate), after in solved.items()
    }
    notes = caveats(read_sweep(write_sweep(tmp_path / "sweep", cells)))
    assert any("At an end of the range: rank 64 (4e-4);" in note for note in notes)


def test_unequal_treatment_is_said(tmp_path: Path) -> None:
    folder = write_sweep(
        tmp_path / "sweep",
        {
            "r8": {"rank": 8, "budget_s": 240.0},
            "r64": {"rank": 64, "budget_s": 360.0, "versions": {"torch": "2.12.0"}},
            "r256": {"rank": 256, "budget_s": 300.0},
        },
    )
    sweep = read_sweep(folder)
    notes = [note.replace("\N{NO-BREAK SPACE}", " ") for note in caveats(sweep)]
    assert any(note.startswith("Budgets differ, from 4 min (r8) to 6 min (r64)") for note in notes)
    assert [row[-2].replace("\N{NO-BREAK SPACE}", " ") for row in runs(sweep).body][:2] == [
        "9.83 of 4 min",
        "9.83 of 6 min",
    ]
    assert [name for name, _ in shared(sweep)][:2] == ["model", "number format"]
    assert not {"rank", "budget", "torch"} & {name for name, _ in shared(sweep)}
