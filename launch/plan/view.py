"""The plan for a person: whether it fits, its cost, and the effect of more GPUs."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from microbudget_rl.actors.coordinator.budget import cost_of
from microbudget_rl.actors.formats import counted, duration, money
from microbudget_rl.actors.models.sizes import lora_parameters, parameters
from microbudget_rl.actors.runtime.placement import Share
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.load import flatten
from microbudget_rl.conf.schema.model import PROJECTIONS
from microbudget_rl.conf.schema.reward import formula
from microbudget_rl.launch.hardware.machine import GIB
from microbudget_rl.launch.plan.memory import misfit
from microbudget_rl.launch.plan.plan import Plan
from microbudget_rl.launch.plan.refusal import advice
from microbudget_rl.launch.plan.time import FILL

Rows = Iterable[tuple[str, str]]
"""Names, each with a description, which may be empty."""

FEWEST_UPDATES = 20
"""Updates below which a plan advises more: our choice."""

FEW = "that is little: six runs of 7 to 14 updates rose from 4 to between 10 and 25 % of a toy's problems"
"""What is known about fewer updates, see docs/background/results.md."""

WORDS = {"GPU", "bound by", "fits", "has", "place"}
"""Columns of tables that have words."""

MOST_PASSES = 20
"""Passes over the training problems above which a plan advises fewer: our choice. The quickstart's runs make up to 14
and still gain at the end."""


def render_plan(plan: Plan) -> RenderableType:
    """Show settings, placement, memory and time, in 80 columns or more."""
    sections = {"Placement": _grid(_placement(plan)), "Memory": _memory(plan), "Time": _time(plan)}
    return Group(
        Rule(Text(plan.config.run.name, "bold"), align="left"),
        conclusion(plan),
        Text(),
        Padding(_grid(_settings(plan)), (0, 0, 1, 2)),
        *(Group(Text(heading, "bold"), Padding(section, (0, 0, 1, 2))) for heading, section in sections.items()),
    )


def conclusion(plan: Plan) -> Text:
    """Say whether the run fits, its number of updates and its cost; or why it does not fit, and the remedy."""
    if not plan.fits:
        return Text(f"Does not fit: {misfit(plan)}; {advice(plan)}.", style="bold red")
    budget, estimate = plan.config.budget, plan.estimate
    if estimate is None:
        text = f"The updates in {duration(budget.seconds)} are not known: conf/devices.yaml has no speed for"
        return Text(f"Fits. {text} {plan.machine.name}.", style="bold green")
    cost = f", for {price}" if (price := _cost(plan)) else ""
    low, high = estimate.update_range
    other = "" if plan.calibration.of or low == high else f" ({low:,} to {high:,}: it has not been measured)"
    about = f"{counted(estimate.updates, 'update')} in {duration(estimate.spent_s)}{other}{cost}"
    if estimate.updates < FEWEST_UPDATES:
        return Text(f"Fits, but about {about}: {FEW}; raise the budget.", style="bold yellow")
    style = "bold yellow" if plan.passes > MOST_PASSES else "bold green"
    return Text(f"Fits. About {about}. {purposes(plan)}".strip(), style)


def purposes(plan: Plan) -> str:
    """Say how many problems train, choose and report, the passes over the first, and a shorter budget for too many."""
    if not (problems := plan.problems):
        return ""
    said = (
        f"{problems.train:,} problems train, {problems.selection:,} choose the result, {problems.heldout:,} report it."
    )
    planned, passes = plan.estimate, plan.passes
    if not (planned and passes):
        return said
    said += f" About {passes:,.{int(passes < 10)}f} passes over those that train."
    if passes <= MOST_PASSES:
        return said
    needless = planned.updates - int(planned.updates * MOST_PASSES / passes)
    minutes = max(int((planned.spent_s - needless * (planned.update_s + planned.validate_s)) / 60), 1)
    cost = cost_of(plan.config.budget.price_per_hour, 60 * minutes)
    price = "" if cost is None else f" (for {money(cost)})"
    remedy = f"budget.minutes={minutes}{price} or more problems; a smaller eval.share leaves more to train on"
    return f"{said} More than {MOST_PASSES} have not been measured: give {remedy}."


def _cost(plan: Plan) -> str:
    return "" if plan.cost is None else f"{money(plan.cost)} at {plan.config.budget.price_per_hour:.2f} per hour"


def _settings(plan: Plan) -> Rows:
    config, shape = plan.config, plan.shape
    data, lora, rollout = config.data, config.lora, config.rollout
    held_out, choosing = config.eval.problems, config.validation_problems
    modules = "all linear layers" if len(lora.target_modules) == len(PROJECTIONS) else ", ".join(lora.target_modules)
    weights = lora_parameters(shape, lora.rank, lora.target_modules)
    tokens = f"{rollout.max_prompt_tokens} + {rollout.max_response_tokens} tokens"
    if problems := plan.problems:
        held_out, choosing = problems.heldout, problems.selection
    held_out_text = (
        f"{held_out} problems × {config.eval.n}{f', and {choosing} validation problems' if choosing else ''}"
    )
    return [
        ("model", f"{config.model.path}, {_count(parameters(shape))} weights in {config.model.dtype}"),
        ("adapter", f"rank {lora.rank}, alpha {lora.alpha} on {modules}: {_count(weights)} weights"),
        ("data", data.origin),
        (
            "held out",
            f"{held_out_text} from {data.eval_source or ('all sources' if data.mixture else 'the same source')}",
        ),
        (
            "update",
            f"{config.learner.problems_per_update} problems × {rollout.samples_per_problem} samples of up to {tokens}",
        ),
        ("reward", formula(flatten(asdict(config)))),
    ]


def _placement(plan: Plan) -> Rows:
    machine, placement = plan.machine, plan.placement
    memory = f", {machine.gpu_memory / GIB:.1f} GiB" if machine.gpus else ""
    nodes = f", {len(machine.nodes)} nodes" if machine.nodes else ""
    absent = "" if machine.present else " (not in this machine)"
    return [
        ("machine", machine.described + memory + nodes + absent),
        ("rollout", _shares(placement.rollouts)),
        ("learner", _shares(placement.learners)),
        ("weights", f"{_shares((placement.weights,))}, for both" if placement.weights else ""),
        ("reward", counted(placement.reward_workers, "worker process", "es")),
    ]


def _shares(shares: tuple[Share, ...]) -> str:
    """Say which part of the CPU or of a GPU each actor has."""
    count = f"{len(shares)} × " if len(shares) > 1 else ""
    if cores := [share.cores for share in shares if share.cores]:
        each = (
            f"{of_actor[0]}" if len(of_actor) == 1 else f"{of_actor[0]}–{of_actor[-1]} ({len(of_actor)} cores)"
            for of_actor in cores
        )
        return f"{count}core " + "; ".join(each)
    kinds = Counter(f"{share.gpus:g} of a GPU, {share.memory:.0%} of its memory" for share in shares)
    return "; ".join(f"{number} × {kind}" if len(shares) > 1 else kind for kind, number in kinds.items())


def _memory(plan: Plan) -> RenderableType:
    table = plain_table("place", "needs", "has")
    table.show_header = False
    for place, has in plan.available.items():
        outcome, style = ("does not fit", "bold red") if place in plan.overfull else ("fits", "green")
        needed = Text("of an unknown host") if has is None else Text(f"{outcome}: there are {has / GIB:.1f} GiB", style)
        table.add_row(Text(place, style="bold"), Text(f"{plan.needed(place) / GIB:.2f} GiB", style="bold"), needed)
        for entry in plan.memory:
            if entry.place == place:
                table.add_row(f"  {entry.what}", f"{entry.bytes / GIB:.2f} GiB")
    note = f"The KV caches hold {counted(plan.sequences, 'sample')} of full length."
    if plan.machine.gpus:
        note += " They take all memory that is left. Memory of GPUs is computed; it has not been measured on one yet."
    return Group(table, Text(note, style="dim"))


def _time(plan: Plan) -> RenderableType:
    if (estimate := plan.estimate) is None:
        return Text(source(plan))
    manner = "overlapped" if plan.config.learner.max_staleness else "one after the other"
    if plan.placement.shared:
        manner += f", on one {'GPU' if plan.machine.gpus else 'core'}"
    if plan.config.run.mps:
        assumed = plan.undecided.run.nvidia_mps == "auto" and not plan.machine.tried
        manner += " with NVIDIA's MPS" + (", if it works there" if assumed else "")
    budget, warm = plan.config.budget, plan.config.warm_start
    benchmarks = ", ".join(f"{each.name} ({each.problems} problems × {each.n})" for each in plan.benchmarks)
    responses = f"on up to {warm.demonstrations:,} responses from {warm.source}"
    validations = round(estimate.updates * estimate.validate_s / estimate.validation_s) if estimate.validation_s else 0
    part = estimate.validate_s / (estimate.update_s + estimate.validate_s)
    tokens = f"{_count(estimate.updates * estimate.tokens)} tokens, {plan.workload.varied:.0%} of them useful"
    rows = {
        "one update": f"about {duration(estimate.update_s)}, bound by {estimate.bottleneck}",
        "generation": f"{duration(estimate.generate_s)} per update, {_count(estimate.tokens)} tokens",
        "learning": f"{duration(estimate.learn_s)} per update, {manner}",
        "start": duration(estimate.start_s),
        "warm start": f"at most {duration(estimate.warm_start_s)}, {responses}" if warm.source else "",
        "evaluation": f"{estimate.evaluations} × {duration(estimate.evaluate_s)}, before and after training",
        "benchmarks": f"{duration(estimate.benchmarks_s)} each time: {benchmarks}" if benchmarks else "",
        "validation": f"{validations} × {duration(estimate.validation_s)}, {part:.1%} of the time of training"
        if part
        else "",
        "budget": f"{duration(budget.seconds)}: {counted(estimate.updates, 'update')}, {tokens}",
        "cost": _cost(plan) or "unknown: set budget.price_per_hour",
    }
    work, measured = plan.workload, plan.calibration.workload is not None
    how = (f"Measured by {work.by}" if work.by else "Measured") if measured else "Assumed"
    half = "" if measured or plan.config.rollout.typical_response_tokens else f" ({FILL:.0%} of their limit)"
    lengths = f"prompts of {work.prompt:.0f} tokens, responses of {work.response:.0f}{half}"
    said = f"{source(plan)} {how}: {lengths}, {work.varied:.0%} of the groups with variance."
    return Group(_grid(rows.items()), Text(said, style="dim"))


def source(plan: Plan) -> str:
    """Say where the times of a plan come from."""
    if plan.estimate is None:
        return "Without speeds there is no estimate of the time."
    if plan.calibration.of:
        return f"From rates and sizes, corrected by a measurement here: {plan.calibration.of}."
    where = "this machine" if plan.machine.present else plan.machine.name
    return f"From rates and sizes; no run of this model has been measured on {where} yet."


def scale(plan: Plan, gpus: list[int]) -> Iterator[Plan]:
    """Plan the run on each number of GPUs, then with a batch that grows with them. Raises BadInput for a misfit."""
    machine = plan.machine
    if gpus and not (machine.gpus and machine.rates):
        raise BadInput(f"simulate={gpus}: there is no GPU whose rates are known; name one, such as device=A40")
    problems = plan.config.learner.problems_per_update
    for count, factor in [(count, 1) for count in gpus] + [(count, count) for count in gpus if count > 1]:
        cores = tuple(range(len(machine.cores) * count))
        larger = replace(machine, gpus=count, cores=cores)
        scaled = plan.again({"learner.problems_per_update": problems * factor}, larger)
        if not scaled.fits:
            raise BadInput(f"simulate={gpus}: on {scaled.machine.described}, {misfit(scaled)}; {advice(scaled)}")
        yield scaled


def render_scaling(scaling: Iterable[Plan]) -> RenderableType:
    """Show the effect of more GPUs, one number of GPUs per row."""
    table = plain_table("GPUs", "batch", "split", "busy", "updates/h", "bound by")
    for plan in scaling:
        estimate = plan.estimate
        assert estimate is not None
        table.add_row(
            str(plan.machine.gpus),
            str(plan.config.learner.problems_per_update),
            f"{len(plan.placement.rollouts)} + {len(plan.placement.learners)}",
            f"{estimate.generate_s / estimate.update_s:.0%} + {estimate.learn_s / estimate.update_s:.0%}",
            f"{3600 / estimate.update_s:,.1f}",
            estimate.bottleneck,
        )
    notes = (
        "First with the recipe's batch, then with one that grows with the GPUs. split: engines + learner processes,"
        " which share GPUs if they outnumber them; busy: in the same order. The transport of samples is not included."
    )
    return Group(Text("Scaling", style="bold"), Padding(Group(table, Text(notes, style="dim")), (0, 0, 1, 2)))


def _grid(rows: Rows) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="cyan", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, text in rows:
        if text:
            grid.add_row(name, text)
    return grid


def plain_table(*columns: str) -> Table:
    """Return an empty table, whose numbers are at the right of their columns. Only a GPU's name is ever wrapped."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in columns:
        table.add_column(name, no_wrap=name != "GPU", justify="left" if name in WORDS else "right")
    return table


def _count(number: float) -> str:
    for unit, size in (("billion", 1e9), ("million", 1e6)):
        if number >= 0.9995 * size:  # three digits are shown
            return f"{number / size:.3g} {unit}"
    return f"{number:,.0f}"
