"""The plan as a person reads it."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import groupby

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from actors.formats import duration
from actors.models.sizes import answers_alone, lora_parameters, parameters
from actors.runtime.placement import Share
from conf.catalogue import CARD_DTYPE
from conf.load import flatten
from conf.schema.model import PROJECTIONS
from conf.schema.reward import formula
from launch.hardware.machine import GIB
from launch.plan.estimate import Estimate
from launch.plan.memory import misfit
from launch.plan.plan import Plan
from launch.plan.refusal import advice
from launch.plan.time import EFFICIENCY, FILL, LEARN_RANGE

Rows = list[tuple[str, str]]
"""A name and what there is to say of it."""


def render(plan: Plan, others: Mapping[str, Estimate] | None = None) -> RenderableType:
    """Show settings, placement, memory and time, from 80 columns up. others: estimates of other splits, by name."""
    parts: list[RenderableType] = [
        Rule(Text(plan.config.run.name, "bold"), align="left"),
        verdict(plan),
        Text(),
        Padding(_grid(_settings(plan)), (0, 0, 1, 2)),
    ]
    for heading, part in (
        ("Placement", _grid(_placement(plan))),
        ("Memory", _memory(plan)),
        ("Time", _time(plan, others or {})),
    ):
        parts += [Text(heading, style="bold"), Padding(part, (0, 0, 1, 2))]
    return Group(*parts)


def verdict(plan: Plan) -> Text:
    """Say whether the run fits, and what it comes to; or why it does not, and what would."""
    if not plan.fits:
        return Text(f"Does not fit: {misfit(plan)}; {advice(plan)}.", style="bold red")
    if (found := plan.estimate) is None:
        return Text("Fits. How long it takes cannot be said: no rates of this card are known.", style="bold green")
    budget, price = plan.config.budget, plan.config.budget.price_per_hour
    cost = "" if price is None else f", {price * found.spent_s / 3600:,.2f} at {price:.2f} an hour"
    return Text(f"Fits. About {found.updates:,} updates in {duration(budget.seconds)}{cost}.", style="bold green")


def _settings(plan: Plan) -> Rows:
    config = plan.config
    data, lora, rollout, learner, evaluation = config.data, config.lora, config.rollout, config.learner, config.eval
    weights = lora_parameters(plan.shape, lora.rank, lora.target_modules)
    modules = "all linear layers" if len(lora.target_modules) == len(PROJECTIONS) else ", ".join(lora.target_modules)
    init = "" if lora.init == "default" else f", {lora.init} A"
    updates = "" if config.budget.updates is None else f" or {config.budget.updates} updates"
    return [
        ("model", f"{config.model.path}, {_count(parameters(plan.shape))} weights in {config.model.dtype}"),
        ("adapter", f"rank {lora.rank}, alpha {lora.alpha}{init} on {modules}: {_count(weights)} weights"),
        ("data", data.source + _counted(plan)),
        ("held out", f"{evaluation.problems} problems × {evaluation.n} from {data.eval_source or 'the same source'}"),
        (
            "update",
            f"{learner.problems_per_update} problems × {rollout.samples_per_problem} samples of up to"
            f" {rollout.max_prompt_tokens} + {rollout.max_response_tokens} tokens, temperature {rollout.temperature:g}",
        ),
        (
            "learning",
            f"GRPO, {learner.schedule} rate {learner.learning_rate:g}, staleness at most {learner.max_staleness}",
        ),
        ("reward", formula(flatten(asdict(config)))),
        *([("deterministic", _manner(plan))] if config.run.deterministic else []),
        (
            "budget",
            f"{duration(config.budget.seconds)}{updates} of wall-clock, the last evaluation and checkpoint included",
        ),
    ]


def _counted(plan: Plan) -> str:
    """Say how many problems a file has, and how soon a run is through with them."""
    if (found := plan.problems) is None:
        return ""
    epoch = math.ceil(found.train / plan.config.learner.problems_per_update)
    dropped = f"; {found.left_out} rows left out" if found.left_out else ""
    return f": {found.train} problems to train on, {epoch} update{'s' * (epoch > 1)} an epoch{dropped}"


def _manner(plan: Plan) -> str:
    if answers_alone(plan.config, plan.placement.device):
        return "rollouts and learner take turns, and an engine answers one request at a time; see Time for the cost"
    return "rollouts and learner take turns, in vLLM's batch-invariant mode; what that costs has not been measured"


def _placement(plan: Plan) -> Rows:
    machine, placement = plan.machine, plan.placement
    cards = f"{machine.gpus} × {machine.name}, {machine.gpu_memory / GIB:.1f} GiB" if machine.gpus else machine.name
    nodes = f", {len(machine.nodes)} nodes" if machine.nodes else ""
    absent = "" if machine.present else " (not in this machine)"
    engines, ranks = placement.rollouts, placement.learners
    return [
        ("machine", cards + nodes + absent),
        ("rollout" + _times(engines), _shares(engines)),
        ("learner" + _times(ranks), _shares(ranks)),
        ("reward", f"{placement.reward_workers} worker process{'es' * (placement.reward_workers > 1)}"),
    ]


def _times(shares: tuple[Share, ...]) -> str:
    return f" × {len(shares)}" if len(shares) > 1 else ""


def _shares(shares: tuple[Share, ...]) -> str:
    """Name the cores of each, or what each has of a card."""
    if shares[0].cores:
        return "; ".join(f"core{'s' * (len(share.cores) > 1)} {_ranges(share.cores)}" for share in shares)
    return f"{shares[0].gpus:g} of a GPU, {shares[0].memory:.0%} of its memory"


def _memory(plan: Plan) -> RenderableType:
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column()
    table.add_column(justify="right", no_wrap=True)
    table.add_column(style="dim")
    for place, has in plan.available.items():
        outcome, style = ("does not fit", "bold red") if place in plan.overfull else ("fits", "green")
        of = Text("of a host not known") if has is None else Text(f"{outcome}: there are {has / GIB:.1f} GiB", style)
        table.add_row(Text(place, style="bold"), Text(f"{plan.needed(place) / GIB:.2f} GiB", style="bold"), of)
        for entry in plan.memory:
            if entry.place == place:
                table.add_row(f"  {entry.what}", f"{entry.bytes / GIB:.2f} GiB", entry.formula)
    grown = ", which uses the remaining memory" if plan.machine.gpus else ""
    table.add_row("samples at once", str(plan.sequences), f"of full length fit the KV cache{grown}")
    notes = []
    if plan.machine.gpus:
        notes.append(Text("Memory of cards is computed; it has not been measured on one yet.", style="dim"))
    return Group(table, *notes)


def _time(plan: Plan, others: Mapping[str, Estimate]) -> RenderableType:
    if (found := plan.estimate) is None:
        known = plan.machine.rates and not plan.fits
        return Text(f"no estimate: {misfit(plan) if known else 'the rates of this card are not in conf/devices.yaml'}")
    tokens, price = found.tokens, plan.config.budget.price_per_hour
    bound = "waits of rollouts and learner for each other" if found.bottleneck == "waits" else found.bottleneck
    shared = f", on the same {'card' if plan.machine.gpus else 'core'}"
    manner = shared if plan.placement.shared else "" if plan.config.learner.max_staleness else ", in turn"
    cost = "budget.price_per_hour says what the machine costs"
    if price is not None:
        each = price * found.update_s / 3600
        cost = f"{price * found.spent_s / 3600:,.2f} in all, {each:.2g} an update"
    rows = [
        ("an update", f"about {duration(found.update_s)}, bound by {bound}"),
        (
            "",
            f"rollouts generate {duration(found.generate_s)} of it ({_count(tokens)} tokens), the learner works"
            f" {duration(found.learn_s)}{manner}",
        ),
        ("start, evaluation", f"{duration(found.start_s)}, {duration(found.evaluate_s)} twice"),
        ("the budget", f"about {found.updates:,} updates, {_count(found.updates * tokens)} tokens"),
        ("cost", cost),
        *(
            (name, f"about {other.updates:,} updates, {duration(other.update_s)} each")
            for name, other in others.items()
        ),
    ]
    return Group(_grid(rows), Text(f"{_source(plan)} {_assumptions(plan)}", style="dim"))


def _source(plan: Plan) -> str:
    if plan.calibration.of:
        return f"From rates and sizes, corrected by what was measured here: {plan.calibration.of}."
    unknown = ""
    if plan.machine.gpus:
        low, high = LEARN_RANGE
        taken = EFFICIENCY["cuda", CARD_DTYPE].learn
        unknown = f" Learning is taken to reach {taken:.0%} of its rate; it may be {low:.0%} or {high:.0%}."
    return f"From rates and sizes; no run has been measured on {plan.machine.name} yet.{unknown}"


def _assumptions(plan: Plan) -> str:
    config, work = plan.config, plan.workload
    measured = plan.calibration.workload is not None
    half = "" if measured or config.rollout.typical_response_tokens else f" ({FILL:.0%} of their limit)"
    return (
        f"{'Measured' if measured else 'Assumed'}: prompts of {work.prompt:.0f} tokens, answers of"
        f" {work.response:.0f}{half}, {work.varied:.0%} of the groups with something to learn from."
    )


def render_scaling(scaling: Iterable[Plan]) -> RenderableType:
    """Show what more cards would do, one number of cards in a row."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("GPUs", "batch", "split", "busy", "updates/h", "staleness", "groups/s", "bound by"):
        table.add_column(heading, justify="left" if heading == "bound by" else "right", no_wrap=True)
    for plan in scaling:
        found = plan.estimate
        assert found is not None
        table.add_row(
            str(plan.machine.gpus),
            str(plan.config.learner.problems_per_update),
            f"{len(plan.placement.rollouts)} + {len(plan.placement.learners)}",
            f"{found.rollouts_busy:.0%} + {found.learner_busy:.0%}",
            f"{3600 / found.update_s:,.1f}",
            f"{found.staleness:.0f}",
            f"{found.groups_per_s:.2g}",
            found.bottleneck,
        )
    notes = (
        "By the plan's formulas, first with the recipe's batch, then with one that grows with the GPUs. split: rollout"
        " actors + learner ranks; busy: the same. Transport of samples is not in it."
    )
    return Group(Text("Scaling", style="bold"), Padding(Group(table, Text(notes, style="dim")), (0, 0, 1, 2)))


def _grid(rows: Rows) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="cyan", no_wrap=True)
    grid.add_column(overflow="fold")
    for row in rows:
        grid.add_row(*row)
    return grid


def _count(number: float) -> str:
    for unit, size in (("billion", 1e9), ("million", 1e6)):
        if number >= 0.9995 * size:  # what is shown with three digits
            return f"{number / size:.3g} {unit}"
    return f"{number:,.0f}"


def _ranges(numbers: Sequence[int]) -> str:
    """Write sorted numbers with runs shortened: 0–3, 8."""
    runs = [[number for _, number in run] for _, run in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0])]
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}–{run[-1]}" for run in runs)
