"""The plan as a person reads it."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from actors.runtime.placement import Share
from conf.schema.model import PROJECTIONS
from conf.sizes import lora_parameters, parameters
from launch.plan.forecast import Forecast, Option, Scaled, seconds_spent, updates_in_budget
from launch.plan.machine import GIB
from launch.plan.plan import Plan, advice, duration, misfit
from launch.plan.roofline import FILL


def render(plan: Plan, forecast: Forecast | None, others: Sequence[Option] = ()) -> RenderableType:
    """Settings, placement, memory and time; reads well from 80 columns up. others: what other splits would give."""
    parts: list[RenderableType] = [Rule(f"[bold]{plan.config.run.name}", align="left"), _settings(plan)]
    for heading, part in (
        ("Placement", _placement(plan)),
        ("Memory", _memory(plan)),
        ("Time", _time(plan, forecast, others)),
    ):
        parts += [Text(heading, style="bold"), Padding(part, (0, 0, 1, 2))]
    return Group(*parts)


def _settings(plan: Plan) -> RenderableType:
    config = plan.config
    data, lora, rollout, learner, evaluation = config.data, config.lora, config.rollout, config.learner, config.eval
    weights = lora_parameters(plan.shape, lora.rank, lora.target_modules)
    modules = "all linear layers" if len(lora.target_modules) == len(PROJECTIONS) else ", ".join(lora.target_modules)
    held_out = data.eval_source or "the same source"
    limits = f"{rollout.max_prompt_tokens} + {rollout.max_response_tokens} tokens"
    weights_of = {name: getattr(config.reward, name) for name in ("accuracy", "format", "boxed", "cosine")}
    weights_of |= {part.name: part.weight for part in config.reward.custom}
    reward = [f"{weight:g} · {name}" for name, weight in weights_of.items() if weight]
    budget = duration(config.budget.seconds)
    if config.budget.updates is not None:
        budget += f" or {config.budget.updates} updates"
    grid = _grid()
    grid.add_row("model", f"{config.model.path}, {_count(parameters(plan.shape))} weights in {config.model.dtype}")
    grid.add_row("adapter", f"rank {lora.rank}, alpha {lora.alpha} on {modules}: {_count(weights)} weights")
    grid.add_row("data", data.source)
    grid.add_row("held out", f"{evaluation.problems} problems × {evaluation.n} from {held_out}")
    grid.add_row(
        "update",
        f"{learner.problems_per_update} problems × {rollout.samples_per_problem} samples of up to {limits},"
        f" temperature {rollout.temperature:g}",
    )
    grid.add_row(
        "learning",
        f"GRPO, {learner.schedule} rate {learner.learning_rate:g}, staleness at most {learner.max_staleness}",
    )
    grid.add_row("reward", " + ".join(reward))
    grid.add_row("budget", f"{budget} of wall-clock, the last evaluation and checkpoint included")
    return Padding(grid, (0, 0, 1, 2))


def _placement(plan: Plan) -> RenderableType:
    machine, placement = plan.machine, plan.placement
    cards = f"{machine.gpus} × {machine.name}, {machine.gpu_memory / GIB:.1f} GiB" if machine.gpus else machine.name
    grid = _grid()
    nodes = f", {len(machine.nodes)} nodes" if machine.nodes else ""
    grid.add_row("machine", cards + nodes + ("" if machine.present else " (not in this machine)"))
    for name, shares in (("rollout", placement.rollouts), ("learner", placement.learners)):
        grid.add_row(name + (f" × {len(shares)}" if len(shares) > 1 else ""), _shares(shares))
    grid.add_row("reward", f"{placement.reward_workers} worker process{'es' * (placement.reward_workers > 1)}")
    return grid


def _shares(shares: tuple[Share, ...]) -> str:
    """Cores of all, or what each has of a card."""
    if shares[0].cores:
        return "; ".join(f"core{'s' * (len(share.cores) > 1)} {_ranges(share.cores)}" for share in shares)
    return f"{shares[0].gpus:g} of a GPU, {shares[0].memory:.0%} of its memory"


def _memory(plan: Plan) -> RenderableType:
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column()
    table.add_column(justify="right", no_wrap=True)
    table.add_column(style="dim")
    for place, room in plan.room.items():
        needed = plan.needed(place)
        over = place in plan.overfull
        outcome = "does not fit" if over else "fits"
        of = f"{outcome}: there are {room / GIB:.1f} GiB" if room is not None else "of a host not known"
        table.add_row(
            Text(place, style="bold"),
            Text(f"{needed / GIB:.2f} GiB", style="bold"),
            Text(of, style="bold red" if over else "green" if room is not None else ""),
        )
        for entry in plan.memory:
            if entry.place == place:
                table.add_row(f"  {entry.what}", f"{entry.bytes / GIB:.2f} GiB", entry.formula)
    table.add_row(
        "samples at once",
        str(plan.sequences),
        "of full length fit the KV cache" + (", grown into the rest" if plan.machine.gpus else ""),
    )
    notes = []
    if not plan.fits:
        notes.append(Text(f"Not as it is: {misfit(plan)}; {advice(plan)}.", style="bold red"))
    if plan.machine.gpus:
        notes.append(Text("Memory of cards is computed; it has not been measured on one yet.", style="dim"))
    return Group(table, *notes)


def _time(plan: Plan, forecast: Forecast | None, others: Sequence[Option]) -> RenderableType:
    if plan.estimate is None or forecast is None:
        known = plan.machine.rates and not plan.fits
        return Text(f"no estimate: {misfit(plan) if known else 'the rates of this card are not in conf/devices.yaml'}")
    config, tokens = plan.config, plan.estimate.tokens
    updates = updates_in_budget(plan, forecast)
    grid = _grid()
    bound = "waits of rollouts and learner for each other" if forecast.bottleneck == "waits" else forecast.bottleneck
    grid.add_row("an update", f"about {duration(forecast.update_s)}, bound by {bound}")
    grid.add_row(
        "",
        f"rollouts generate {duration(forecast.generate_s)} of it ({_count(tokens)} tokens), the learner works"
        f" {duration(forecast.learn_s)}{_manner(plan)}",
    )
    grid.add_row("start, evaluation", f"{duration(forecast.start_s)}, {duration(plan.estimate.evaluate_s)} twice")
    grid.add_row("the budget", f"about {updates:,} updates, {_count(updates * tokens)} tokens")
    price = config.budget.price_per_hour
    if price is None:
        grid.add_row("cost", "budget.price_per_hour says what the machine costs")
    else:
        each = price * forecast.update_s / 3600
        grid.add_row("cost", f"{price * seconds_spent(plan, forecast) / 3600:,.2f} in all, {each:.2g} an update")
    for option in others:
        grid.add_row(option.name, f"about {updates_in_budget(option.plan, option.forecast):,} updates")
    return Group(grid, Text(f"{_source(plan)} {_assumptions(plan)}", style="dim"))


def _manner(plan: Plan) -> str:
    """How the two halves of an update share the time."""
    if plan.placement.shared:
        return ", on the same processor"
    return "" if plan.estimate and plan.estimate.together else ", in turn"


def _source(plan: Plan) -> str:
    if plan.calibration.of:
        return f"From rates and sizes, corrected by what was measured here: {plan.calibration.of}."
    return f"From rates and sizes; no run has been measured on {plan.machine.name} yet."


def _assumptions(plan: Plan) -> str:
    config, work = plan.config, plan.workload
    measured = plan.calibration.workload is not None
    half = "" if measured or config.rollout.typical_response_tokens else f" ({FILL:.0%} of their limit)"
    return (
        f"{'Measured' if measured else 'Assumed'}: prompts of {work.prompt:.0f} tokens, answers of"
        f" {work.response:.0f}{half}, {work.varied:.0%} of the groups with something to learn from."
    )


def render_scaling(plan: Plan, scaling: Sequence[Scaled]) -> RenderableType:
    """What more cards would do, a row each."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("GPUs", "batch", "split", "busy", "updates/h", "age", "groups/s", "core", "bound by"):
        table.add_column(heading, justify="left" if heading == "bound by" else "right", no_wrap=True)
    for row in scaling:
        found = row.forecast
        table.add_row(
            str(row.gpus),
            str(row.plan.config.learner.problems_per_update),
            f"{len(row.plan.placement.rollouts)} + {len(row.plan.placement.learners)}",
            f"{found.rollouts_busy:.0%} + {found.learner_busy:.0%}",
            f"{3600 / found.update_s:,.1f}",
            f"{found.staleness:.1f}",
            f"{row.groups_per_s:.2g}",
            f"{row.load:.1%}",
            row.bottleneck,
        )
    notes = (
        "Simulated with the run's own coordinator, first with its batch, then with one that grows with the cards."
        " split: rollout actors + learner ranks; busy: the same. age: versions that the oldest group of an update lags"
        " behind. core: what coordinator and modelled actors together would take of one core here; transport of samples"
        " is not in it."
    )
    return Group(Text("Simulation", style="bold"), Padding(Group(table, Text(notes, style="dim")), (0, 0, 1, 2)))


def _grid() -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="cyan", no_wrap=True)
    grid.add_column(overflow="fold")
    return grid


def _count(number: float) -> str:
    for unit, size in (("billion", 1e9), ("million", 1e6)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:,.0f}"


def _ranges(numbers: tuple[int, ...]) -> str:
    """Sorted numbers with runs shortened: 0–3, 8."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}–{run[-1]}" for run in runs)
