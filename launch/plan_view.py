"""The plan as a person reads it."""

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from actors.placement import Share
from conf.sizes import PROJECTIONS, lora_parameters, parameters
from launch.machine import GIB
from launch.plan import FILL, Plan, duration


def render(plan: Plan) -> RenderableType:
    """Settings, placement, memory and time; reads well from 80 columns up."""
    parts: list[RenderableType] = [Rule(f"[bold]{plan.config.run.name}", align="left"), _settings(plan)]
    for heading, part in (("Placement", _placement(plan)), ("Memory", _memory(plan)), ("Time", _time(plan))):
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
        over = room is not None and needed > room
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
    return table


def _time(plan: Plan) -> RenderableType:
    estimate = plan.estimate
    if estimate is None:
        return Text("no estimate: the rates of this card are not in conf/devices.yaml, or no sample fits")
    joined = "at the same time" if estimate.together else "in turn on the same processor"
    bound = "generation" if estimate.generate_s > estimate.learn_s else "learning"
    grid = _grid()
    grid.add_row("an update", f"about {duration(estimate.update_s)}, bound by {bound}")
    grid.add_row(
        "",
        f"generation {duration(estimate.generate_s)} ({_count(estimate.tokens)} tokens), learning"
        f" {duration(estimate.learn_s)}, {joined}",
    )
    grid.add_row("evaluation", f"about {duration(estimate.evaluate_s)}, before and after")
    grid.add_row("the budget", f"about {estimate.updates:,} updates")
    note = f"Estimated from rates and sizes, with samples {FILL:.0%} of their limit; the run measures."
    return Group(grid, Text(note, style="dim"))


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
