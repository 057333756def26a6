"""The paper's tables with the results of a sweep, each figure of ours beside the paper's, and the plot of gains."""

from collections.abc import Callable, Sequence
from itertools import cycle

import matplotlib as mpl

from microbudget_rl.actors.evaluation.statistics import Mean
from microbudget_rl.launch.reporting.comparison import over_seeds
from microbudget_rl.launch.reporting.history import Sweep
from microbudget_rl.launch.reporting.paper import PAPER, figure, model
from microbudget_rl.launch.reporting.paper.results import Models, gain, level
from microbudget_rl.launch.reporting.plots import DASHES, LARGER, Plot, blank, finish, label
from microbudget_rl.launch.reporting.tables import Cells, Table
from microbudget_rl.launch.reporting.wording import MISSING, decimal, points

ROW = 0.13
"""Inches that a setting of a model adds to the height of the plot of gains."""


def within(mean: Mean | None, written: Callable[[float], str]) -> str:
    """Write a mean with its interval."""
    if mean is None:
        return MISSING
    return written(mean.value) + (f" ({' to '.join(map(written, mean.interval))})" if mean.interval else "")


def passed(sweep: Sweep, results: Models) -> list[Table]:
    """Return Table 1: pass@k of the base models and of the trained policies, one table per benchmark."""
    tables = []
    for benchmark in sweep.benchmarks:
        rows: list[Cells] = []
        for setting in results:
            scores = {"base": [setting.base], **{each.label: [*each.scores.values()] for each in setting.shown}}
            for policy, shares in scores.items():
                row = "base" if policy == "base" else "trained"
                levels = [
                    within(level(shares, benchmark, k), lambda share: decimal(100 * share)) for k in sweep.pass_at
                ]
                theirs = [figure(setting.name, row, benchmark, k) for k in sweep.pass_at]
                rows.append((setting.name if row == "base" else "", policy, *_beside(levels, theirs, results)))
        counts = {len(setting.base[benchmark][1]) for setting in results if benchmark in setting.base}
        size = f": {' or '.join(map(str, sorted(counts)))} problems, {sweep.n} samples of each" if counts else ""
        head = _beside([f"pass@{k}, %" for k in sweep.pass_at], ["paper"] * len(sweep.pass_at), results)
        tables.append(Table(f"{PAPER['names'].get(benchmark, benchmark)}{size}", ("model", "policy", *head), rows))
    return tables


def _beside(ours: Sequence[str], theirs: Sequence[str], results: Models) -> Cells:
    """Return our cells, each with the paper's after it if the paper has one of the models."""
    known = any("base" in model(setting.name) for setting in results)
    return tuple(cell for pair in zip(ours, theirs, strict=True) for cell in (pair if known else pair[:1]))


def chosen(results: Models) -> str:
    """Say how the trained policies in the tables were chosen, and what the intervals are over."""
    said = "Trained: the setting with the best mean pass@1 on the validation problems, without the benchmarks."
    if none := [setting.name for setting in results if not setting.chosen]:
        said = f"Without validation nothing was chosen for {', '.join(none)}: all settings are shown."
    return f"{said} Intervals are over seeds or over problems, whichever is wider."


def entropies(results: Models) -> Table:
    """Return Table 2: change of the mean token entropy by rank."""
    ranks = sorted({each.rank for setting in results for each in setting.trained})
    rows: list[Cells] = []
    for setting in results:
        changes = [setting.entropy_changes(rank) for rank in ranks]
        printed = [model(setting.name).get("entropy", {}).get(rank) for rank in ranks]
        theirs = [MISSING if change is None else decimal(change, sign="+") for change in printed]
        ours = [within(over_seeds(each) if each else None, points) for each in changes]
        rows.append((setting.name, *_beside(ours, theirs, results)))
    note = (
        "Mean over the tokens of the policy's own responses, over the whole vocabulary: the last tenth of the updates"
        " against the first tenth. Intervals are over seeds; one seed has none."
    )
    head = _beside([f"rank {rank}, %" for rank in ranks], ["paper"] * len(ranks), results)
    return Table("Change of the mean token entropy", ("model", *head), rows, note)


def gains(results: Models) -> Plot | None:
    """Draw what each setting gave each model in pass@1 on the benchmarks, with its interval."""
    labels = dict.fromkeys(each.label for setting in results for each in setting.trained)
    colours = dict(zip(labels, cycle(mpl.rcParams["axes.prop_cycle"].by_key()["color"]), strict=False))
    axes = blank(LARGER, ROW * len(results) * len(colours) - 0.75)
    for place, setting in enumerate(results):
        for number, each in enumerate(setting.trained):
            if gained := gain(setting, [each]):
                y, share = place + 0.8 * ((number + 0.5) / len(setting.trained) - 0.5), gained[0]
                ends = [100 * end for end in share.interval or (share.value, share.value)]
                axes.plot(ends, [y, y], color=colours[each.label], linewidth=5, alpha=0.3, solid_capstyle="butt")
                size = 6 if each is setting.chosen else 3
                axes.plot(100 * share.value, y, "o", color=colours[each.label], markersize=size)
    if not axes.lines:
        return None
    for name, colour in colours.items():
        axes.plot([], [], "o", color=colour, label=name)
    axes.axvline(0.0, color=mpl.rcParams["text.color"], linewidth=0.9, linestyle=DASHES[0])
    axes.set_yticks(range(len(results)), [setting.name for setting in results])
    axes.set_ylim(len(results) - 0.5, -0.5)
    label(axes, "", "points", len(colours))
    chosen = "; large dots: chosen by the validation problems" if any(setting.chosen for setting in results) else ""
    return finish(axes, "gains", f"Gain in pass@1 on the benchmarks, with 95 % intervals{chosen}")
