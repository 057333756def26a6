import json
from pathlib import Path

import pytest

from launch.reporting.history import Run, read_run
from launch.reporting.tables import held_out
from launch.reporting.verdict import Change, change, verdict
from tests.run_folders import write_run


def judged(run: Run) -> tuple[Change | None, str]:
    found = change(run)
    return found, verdict(run, found)


@pytest.mark.parametrize(
    ("before", "after", "finding", "said"),
    [
        (2, 18, "rose", "It learned: held-out pass@1 rose from 8.3 % to 75.0 %, by 66.7 points (95 % interval"),
        (18, 2, "fell", "It got worse: held-out pass@1 fell from 75.0 % to 8.3 %, by 66.7 points"),
        (9, 10, "unclear", "No learning can be shown"),
        (0, 0, "unclear", "does not exclude zero"),
    ],
)
def test_verdict_follows_the_interval(tmp_path: Path, before: int, after: int, finding: str, said: str) -> None:
    found, sentence = judged(read_run(write_run(tmp_path / "one", before=before, after=after)))
    assert found is not None
    assert found.finding == finding
    assert said in sentence.replace("\N{NO-BREAK SPACE}", " ")
    assert found.difference.interval is not None
    assert found.difference.interval[0] <= found.difference.value <= found.difference.interval[1]


def test_problems_are_compared_with_themselves(tmp_path: Path) -> None:
    """Nine of 24 solved before, and the same nine and one more after, is a smaller change than other nine and one."""
    folder = write_run(tmp_path / "one", before=9, after=10)
    found, _ = judged(read_run(folder))
    after = folder / "samples" / "eval-final.jsonl"
    others = after.read_text().splitlines()[::-1]
    after.write_text("".join(line + "\n" for line in others))
    names = [f'"p{number}"' for number in range(24)]
    swapped = [line.replace(names[23 - k], names[k]) for k, line in enumerate(others)]
    after.write_text("".join(line + "\n" for line in swapped))
    far, _ = judged(read_run(folder))
    assert found is not None
    assert far is not None
    assert found.difference.interval is not None
    assert far.difference.interval is not None
    assert found.difference.value == pytest.approx(far.difference.value)
    widths = [interval[1] - interval[0] for interval in (found.difference.interval, far.difference.interval)]
    assert widths[1] > 2 * widths[0]


def test_only_problems_that_both_evaluations_judged_are_compared(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "one", before=2, after=18)
    after = folder / "samples" / "eval-final.jsonl"
    after.write_text("".join(line + "\n" for line in after.read_text().splitlines()[:8]))
    summary = json.loads((folder / "summary.json").read_text())
    summary["eval"]["final"] |= {"pass@1": 1.0, "problems": 8}
    (folder / "summary.json").write_text(json.dumps(summary))
    run = read_run(folder)
    found, _ = judged(run)
    assert found is not None
    assert (found.problems, found.before.value, found.after.value, found.difference.value) == (8, 0.25, 1.0, 0.75)
    assert "Before there are 24 problems, after 8" in held_out(run, found).note


@pytest.mark.parametrize(
    ("problems", "said"),
    [
        (5, "from 0.0 % to 100.0 %, by +100.0 points, on 5 problems, too few to tell it from chance."),
        (6, "It learned"),
    ],
)
def test_few_problems_show_nothing(tmp_path: Path, problems: int, said: str) -> None:
    folder = write_run(tmp_path / "one", before=0, after=24)
    for name in ("base", "final"):
        file = folder / "samples" / f"eval-{name}.jsonl"
        file.write_text("".join(line + "\n" for line in file.read_text().splitlines()[:problems]))
    found, sentence = judged(read_run(folder))
    assert found is not None
    assert said in sentence.replace("\N{NO-BREAK SPACE}", " ")
    assert (found.difference.interval is None) == (found.after.interval is None) == (problems < 6)


def test_without_final_evaluation_there_is_no_verdict_but_the_reason(tmp_path: Path) -> None:
    found, sentence = judged(read_run(write_run(tmp_path / "one", after=None, status="halted")))
    assert found is None
    assert sentence == "No verdict: the trained policy was not evaluated; the run halted (it was time)."


def test_without_samples_there_is_no_interval_and_no_claim(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "one")
    (folder / "samples" / "eval-base.jsonl").unlink()
    found, sentence = judged(read_run(folder))
    assert found is not None
    assert (found.difference.interval, found.finding) == (None, "unclear")
    assert "cannot be told" in sentence
