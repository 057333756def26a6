import re
from pathlib import Path

import pytest

from microbudget_rl.actors.results import read_run
from microbudget_rl.launch.reporting.plots import Plot, curves, finals, mastery, overlaid
from tests.json_lines import write_rows
from tests.run_folders import swept, write_run


def legend(plot: Plot | None) -> set[str]:
    assert plot is not None
    texts = re.findall(r">([^<]+)</text>", plot.svg)
    return {text for text in texts if re.search("rank|learning|base|training|held-out|validation", text)}


def test_the_only_update_is_a_whole_tick_and_a_whole_dot(tmp_path: Path):
    for plot in curves(read_run(write_run(tmp_path / "one", updates=1))):
        texts = re.findall(r">([^<]+)</text>", plot.svg)
        assert texts[: texts.index("update")] == ["1"]
        dots = re.findall(r"<g([^>]*)>\s*<use [^>]*style=\"fill: #(?:0a6cbc|c4501b)", plot.svg)
        assert {"clip-path" in dot for dot in dots} == {False}


def test_models_have_lines_and_baselines_of_their_own(tmp_path: Path):
    each = {
        f"{model[0]}-r{rank}-{rate}": {"model": f"owner/{model}", "rank": rank, "learning_rate": rate, "before": before}
        for model, before in (("large", 9), ("tiny", 1))
        for rank in (8, 64)
        for rate in (1e-5, 1e-4)
    }
    sweep = swept(tmp_path, **each)
    shown = legend(finals(sweep))
    assert {"base, large", "base, tiny", "model tiny, learning rate 1e-5", "held-out pass@1"} <= shown
    lines = overlaid(sweep)[:2]
    assert [legend(plot) for plot in lines] == [{"rank 8", "rank 64"}] * 2
    assert [plot.caption.partition(":")[0] for plot in lines] == ["model large", "model tiny"]


@pytest.mark.parametrize(("problems", "updates"), [(1, 2), (100, 40), (7000, 300)])
def test_a_map_has_all_problems_by_when_they_were_first_solved(tmp_path: Path, problems: int, updates: int):
    """The last tenth of them never is."""
    run = write_run(tmp_path / "one")
    learned = problems - problems // 10
    rows = [
        {
            "update": update,
            "right": {f"p{n}": float(n * updates < learned * update and n < learned) for n in range(problems)},
        }
        for update in range(1, updates + 1)
    ]
    write_rows(run / "solved.jsonl", [*rows, {"update": 2, "validation": True, "right": {"v": 1.0}}])
    [plot] = mastery(read_run(run))
    assert plot.name == "mastery-training"
    assert f"{problems // 10} of {problems}" in plot.caption
    assert len(plot.svg) < 200_000
