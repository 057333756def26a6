import re
from pathlib import Path

from launch.reporting.history import read_sweep
from launch.reporting.plots import Plot
from launch.reporting.sweep_plots import by_learning_rate, finals, overlaid
from tests.run_folders import write_sweep


def legend(plot: Plot | None) -> set[str]:
    assert plot is not None
    return {text for text in re.findall(r">([^<]+)</text>", plot.svg) if re.search("rank|learning|before|model", text)}


def test_models_have_lines_and_baselines_of_their_own(tmp_path: Path) -> None:
    cells = {
        f"{model[0]}-r{rank}-{rate}": {"model": f"owner/{model}", "rank": rank, "learning_rate": rate, "before": before}
        for model, before in (("large", 9), ("tiny", 1))
        for rank in (8, 64)
        for rate in (1e-5, 1e-4)
    }
    sweep = read_sweep(write_sweep(tmp_path / "sweep", cells))
    lines = {f"model {model}, rank {rank}" for model in ("large", "tiny") for rank in (8, 64)}
    assert legend(by_learning_rate(sweep)) == lines | {"learning rate"}
    shown = legend(finals(sweep))
    assert {"before, large", "before, tiny", "model tiny, learning rate 1e-5"} <= shown
    assert len(shown) == 1 + 4 + 2
    curve = overlaid(sweep)[0]
    assert legend(curve) == {"rank 8", "rank 64"}
    assert {">large<", ">tiny<"} <= set(re.findall(">[a-z]+<", curve.svg))
