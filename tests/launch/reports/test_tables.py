from pathlib import Path

from launch.reports.history import read_run
from launch.reports.tables import pairs, problem_in
from tests.run_folders import write_run


def test_problems_are_shown_without_what_all_prompts_share() -> None:
    prompts = [f"Solve it.\n<user>\n{a} + 1 =<end>\n<assistant>\n" for a in (1, 12, 7)]
    found = problem_in(set(prompts))
    assert [found[prompt] for prompt in prompts] == ["1 + 1 =<end>", "12 + 1 =<end>", "7 + 1 =<end>"]
    assert problem_in({"1 + 1 ="}) == {"1 + 1 =": "1 + 1 ="}


def test_samples_of_every_outcome_come_up_the_changed_ones_first(tmp_path: Path) -> None:
    found = pairs(read_run(write_run(tmp_path / "one", before=2, after=18)))
    assert [pair.outcome for pair in found] == 2 * ["wrong before, right after", "wrong both times", "right both times"]
    assert all(pair.before["problem"] == pair.after["problem"] for pair in found)
