"""The plan as a person reads it: what fits, what it costs, and what other choices would do."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from actors.formats import duration
from actors.models.sizes import lora_parameters, parameters
from actors.runtime.placement import Share
from conf.devices import CARD_DTYPE
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
"""Names, and a sentence on each."""


def render(plan: Plan, others: Mapping[str, Estimate] | None = None) -> RenderableType:
    """Show settings, placement, memory and time, from 80 columns up. others: estimates of other choices, by name."""
    sections: dict[str, RenderableType] = {
        "Placement": _grid(_placement(plan)),
        "Memory": _memory(plan),
        "Time": _time(plan),
    }
    if others:
        each = ((name, f"about {_updates(other)}, {duration(other.update_s)} each") for name, other in others.items())
        sections["Other choices"] = _grid([*each])
    return Group(
        Rule(Text(plan.config.run.name, "bold"), align="left"),
        conclusion(plan),
        Text(),
        Padding(_grid(_settings(plan)), (0, 0, 1, 2)),
        *(Group(Text(heading, "bold"), Padding(section, (0, 0, 1, 2))) for heading, section in sections.items()),
    )


def conclusion(plan: Plan) -> Text:
    """Say whether the run fits, how far it gets and what it costs; or why it does not fit, and what would."""
    if not plan.fits:
        return Text(f"Does not fit: {misfit(plan)}; {advice(plan)}.", style="bold red")
    if (found := plan.estimate) is None:
        return Text("Fits. Its time cannot be predicted: the rates of this GPU are not known.", style="bold green")
    budget = plan.config.budget
    cost = "" if budget.price_per_hour is None else f", for {_cost(plan, found.spent_s)}"
    return Text(f"Fits. About {_updates(found)} in {duration(budget.seconds)}{cost}.", style="bold green")


def _cost(plan: Plan, seconds: float) -> str:
    price = plan.config.budget.price_per_hour or 0.0
    return f"{price * seconds / 3600:,.2f} at {price:.2f} per hour"


def _settings(plan: Plan) -> Rows:
    config = plan.config
    data, lora, rollout, learner, evaluation = config.data, config.lora, config.rollout, config.learner, config.eval
    weights = lora_parameters(plan.shape, lora.rank, lora.target_modules)
    modules = "all linear layers" if len(lora.target_modules) == len(PROJECTIONS) else ", ".join(lora.target_modules)
    init = "" if lora.init == "default" else f", {lora.init} A"
    updates = "" if config.budget.updates is None else f" or {config.budget.updates} updates"
    problems = ""
    if found := plan.problems:
        epoch = _times(math.ceil(found.train / learner.problems_per_update), "update")
        filtered = f"; {_times(found.left_out, 'row')} filtered" if found.left_out else ""
        problems = f": {_times(found.train, 'problem')} to train on, {epoch} per epoch{filtered}"
    tokens = f"{rollout.max_prompt_tokens} + {rollout.max_response_tokens} tokens"
    return [
        ("model", f"{config.model.path}, {_count(parameters(plan.shape))} weights in {config.model.dtype}"),
        ("adapter", f"rank {lora.rank}, alpha {lora.alpha}{init} on {modules}: {_count(weights)} weights"),
        ("data", data.source + problems),
        ("held out", f"{evaluation.problems} problems × {evaluation.n} from {data.eval_source or 'the same source'}"),
        (
            "update",
            f"{learner.problems_per_update} problems × {rollout.samples_per_problem} samples of up to {tokens},"
            f" temperature {rollout.temperature:g}",
        ),
        (
            "learning",
            f"GRPO, {learner.schedule} rate {learner.learning_rate:g}, staleness at most {learner.max_staleness}",
        ),
        ("reward", formula(flatten(asdict(config)))),
        ("budget", f"{duration(config.budget.seconds)}{updates} of wall-clock, from the start to the last checkpoint"),
    ]


def _placement(plan: Plan) -> Rows:
    machine, placement = plan.machine, plan.placement
    memory = f", {machine.gpu_memory / GIB:.1f} GiB" if machine.gpus else ""
    nodes = f", {len(machine.nodes)} nodes" if machine.nodes else ""
    absent = "" if machine.present else " (not in this machine)"
    return [
        ("machine", machine.described + memory + nodes + absent),
        *(
            (kind, _shares(shares))
            for kind, shares in (("rollout", placement.rollouts), ("learner", placement.learners))
        ),
        ("reward", _times(placement.reward_workers, "worker process", "es")),
    ]


def _shares(shares: tuple[Share, ...]) -> str:
    """Say what each actor has of the CPU or of a GPU."""
    count = f"{len(shares)} × " if len(shares) > 1 else ""
    if cores := [share.cores for share in shares if share.cores]:
        each = (f"{own[0]}" if len(own) == 1 else f"{own[0]}–{own[-1]} ({len(own)} cores)" for own in cores)
        return f"{count}core " + "; ".join(each)
    return f"{count}{shares[0].gpus:g} of a GPU, {shares[0].memory:.0%} of its memory"


def _memory(plan: Plan) -> RenderableType:
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column()
    table.add_column(justify="right", no_wrap=True)
    table.add_column(style="dim")
    for place, has in plan.available.items():
        outcome, style = ("does not fit", "bold red") if place in plan.overfull else ("fits", "green")
        of = Text("of an unknown host") if has is None else Text(f"{outcome}: there are {has / GIB:.1f} GiB", style)
        table.add_row(Text(place, style="bold"), Text(f"{plan.needed(place) / GIB:.2f} GiB", style="bold"), of)
        for entry in plan.memory:
            if entry.place == place:
                table.add_row(f"  {entry.what}", f"{entry.bytes / GIB:.2f} GiB", entry.formula)
    grown = ", which uses the remaining memory" if plan.machine.gpus else ""
    table.add_row("samples at once", str(plan.sequences), f"of full length fit the KV cache{grown}")
    if not plan.machine.gpus:
        return table
    return Group(table, Text("Memory of GPUs is computed; it has not been measured on one yet.", style="dim"))


def _time(plan: Plan) -> RenderableType:
    if (found := plan.estimate) is None:
        known = plan.machine.rates and not plan.fits
        return Text(f"no estimate: {misfit(plan) if known else 'the rates of this GPU are not in conf/devices.yaml'}")
    bound = "waits of rollouts and learner for each other" if found.bottleneck == "waits" else found.bottleneck
    manner = "" if plan.config.learner.max_staleness else ", in turn"
    if plan.placement.shared:
        manner = f", on the same {'GPU' if plan.machine.gpus else 'core'}"
    cost = "budget.price_per_hour says what the machine costs"
    if (price := plan.config.budget.price_per_hour) is not None:
        cost = f"{_cost(plan, found.spent_s)}, {price * found.update_s / 3600:.2g} per update"
    rows = [
        ("one update", f"about {duration(found.update_s)}, bound by {bound}"),
        ("rollouts", f"generate {duration(found.generate_s)} of it, {_count(found.tokens)} tokens"),
        ("learner", f"works {duration(found.learn_s)} of it{manner}"),
        ("start, evaluation", f"{duration(found.start_s)}, {duration(found.evaluate_s)} twice"),
        ("the budget", f"about {_updates(found)}, {_count(found.updates * found.tokens)} tokens"),
        ("cost", cost),
    ]
    return Group(_grid(rows), Text(f"{_source(plan)} {_assumptions(plan)}", style="dim"))


def _source(plan: Plan) -> str:
    if plan.calibration.of:
        return f"From rates and sizes, corrected by what was measured here: {plan.calibration.of}."
    text = f"From rates and sizes; no run has been measured on {plan.machine.name} yet."
    if plan.machine.gpus:
        low, high = LEARN_RANGE
        text += f" Learning is assumed to reach {EFFICIENCY['cuda', CARD_DTYPE].learn:.0%} of the GPU's rate;"
        text += f" it may be {low:.0%} or {high:.0%}."
    return text


def _assumptions(plan: Plan) -> str:
    work, measured = plan.workload, plan.calibration.workload is not None
    half = "" if measured or plan.config.rollout.typical_response_tokens else f" ({FILL:.0%} of their limit)"
    return (
        f"{'Measured' if measured else 'Assumed'}: prompts of {work.prompt:.0f} tokens, responses of"
        f" {work.response:.0f}{half}, {work.varied:.0%} of the groups with something to learn from."
    )


def render_scaling(scaling: Iterable[Plan]) -> RenderableType:
    """Show what more GPUs would do, one number of GPUs per row."""
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
        "First with the recipe's batch, then with one that grows with the GPUs. split: rollout actors + learner ranks;"
        " busy: the same. The transport of samples is not included."
    )
    return Group(Text("Scaling", style="bold"), Padding(Group(table, Text(notes, style="dim")), (0, 0, 1, 2)))


def _grid(rows: Rows) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="cyan", no_wrap=True)
    grid.add_column(overflow="fold")
    for row in rows:
        grid.add_row(*row)
    return grid


def _updates(found: Estimate) -> str:
    return _times(found.updates, "update")


def _times(number: int, noun: str, plural: str = "s") -> str:
    return f"{number:,} {noun}{'' if number == 1 else plural}"


def _count(number: float) -> str:
    for unit, size in (("billion", 1e9), ("million", 1e6)):
        if number >= 0.9995 * size:  # what is shown with three digits
            return f"{number / size:.3g} {unit}"
    return f"{number:,.0f}"
