"""Combinations of settings that cannot work together."""

from collections.abc import Iterator
from itertools import chain

from microbudget_rl.conf.catalogue import BY_MEMORY, Benchmark, devices, find_benchmarks
from microbudget_rl.conf.errors import BadInput, hint
from microbudget_rl.conf.schema import AlgorithmConfig, Call, CommandLine, Config, DataConfig, ShapeConfig
from microbudget_rl.conf.schema.data import SOURCE, SourceConfig
from microbudget_rl.conf.schema.evaluation import NAME
from microbudget_rl.conf.schema.warm_start import SELF, WarmStartConfig
from microbudget_rl.conf.settings import show


def check(asked: CommandLine) -> None:
    """Raise BadInput with a line for each combination that cannot work."""
    raise_for(chain(_call_faults(asked), _faults(asked)))


def check_lengths(config: Config, context: int) -> None:
    """Raise BadInput if a sample can outgrow the model's context (tokens, 0 while unknown)."""
    raise_for(_length_faults(config, context))


def raise_for(faults: Iterator[str]) -> None:
    if sentences := [*faults]:
        raise BadInput(*sentences)


def _call_faults(call: Call) -> Iterator[str]:
    try:
        find_benchmarks(call.benchmarks)
    except BadInput as unknown:
        yield str(unknown)
    if call.simulate and not call.plan:
        yield f"simulate={call.simulate}: only a plan simulates; add plan=true"


def _faults(config: Config) -> Iterator[str]:
    per_update = config.learner.problems_per_update
    known = ["auto", "cpu", *devices()]
    if config.device not in known and not BY_MEMORY.fullmatch(config.device):
        near = hint(config.device, known)
        all_known = f"all: {', '.join(known)}"
        yield f"device={config.device}: no such device; {near}{all_known}; plan any other by its memory, as device=12GB"
    shape = config.model.shape
    missing = [name for name, value in vars(shape).items() if value == 0 and not isinstance(value, bool)]
    if shape != ShapeConfig() and missing:
        yield f"model.shape.{missing[0]}=0: declare all of model.shape, or nothing: it is then read from config.json"
    if shape.layers and (count := sum(shape.layers.values())) != shape.num_hidden_layers:
        yield f"model.shape.layers: adds up to {count}, not to num_hidden_layers={shape.num_hidden_layers}; correct it"
    yield from _length_faults(config, shape.max_position_embeddings)
    yield from _source_faults(config.data)
    if config.data.size is not None and config.data.size < per_update and not config.data.mixture:
        yield f"data.size={config.data.size}: fewer than learner.problems_per_update={per_update}; raise it"
    if config.run.deterministic and config.learner.max_staleness:
        yield (
            f"learner.max_staleness={config.learner.max_staleness}: with run.deterministic=true no update may use"
            " groups of an older version, since the clock decides how many there are; leave it out"
        )
    if config.run.deterministic and config.budget.updates is None:
        yield (
            "budget.updates=null: with run.deterministic=true updates end the run and pace its learning rate, not the"
            " clock; set it, for example to 100"
        )
    if (most := config.learner.max_kl) and not config.learner.max_staleness:
        yield (
            f"learner.max_kl={most} with learner.max_staleness=0: only samples of an older version show how far"
            " an update moves the policy; raise learner.max_staleness, or give learner.max_kl=0"
        )
    yield from _warm_start_faults(config.warm_start)
    if config.warm_start.from_itself and (adapter := config.lora.start_from):
        yield (
            f"warm_start.source={SELF} with lora.start_from={adapter}: the base model without the adapter would give"
            " the responses; give a source of solutions, or no warm start"
        )
    yield from algorithm_faults(config.algorithm)
    reward = config.reward
    if reward.accuracy == reward.format == reward.boxed == reward.cosine == 0 and not reward.custom:
        yield "reward.accuracy=0, format=0, boxed=0 and cosine=0: nothing would be rewarded; give one of them a weight"
    if config.validation.every and not config.eval.problems:
        yield (
            f"validation.every={config.validation.every} with eval.problems=0: no problems are held out to choose the"
            " result on; raise eval.problems, or give validation.every=0"
        )
    if (patience := config.validation.patience) and not config.validation.every:
        yield f"validation.patience={patience}: nothing is validated; give validation.every, such as 10"
    yield from _benchmark_faults(config.eval.resolved_benchmarks)
    repeats = {
        "eval.n": config.eval.n,
        **{f"{benchmark.key}.n": benchmark.n for benchmark in config.eval.resolved_benchmarks},
    }
    for key, n in repeats.items():
        if config.eval.temperature == 0 and n > 1:
            yield f"{key}={n} with eval.temperature=0: all samples would be the same; set {key}=1"


def _benchmark_faults(benchmarks: list[Benchmark]) -> Iterator[str]:
    for number, benchmark in enumerate(benchmarks):
        said = f"{benchmark.key}.name={benchmark.name}"
        if not NAME.allows(benchmark.name):
            yield f"{said}: {NAME.remedy}"
        if twin := next((other.key for other in benchmarks[:number] if other.name == benchmark.name), ""):
            yield f"{said}: {twin} has this name too; give one of them another"


def _source_faults(data: DataConfig) -> Iterator[str]:
    """Yield sources that are missing, twice there, or named alike."""
    if data.mixture and data.source:
        yield f"data.source={data.source} with data.mixture: the mixture names all sources; leave one of the two out"
    mixed = {f"data.mixture[{number}]": entry for number, entry in enumerate(data.mixture)}
    names: dict[str, str] = {}
    for key, entry in (mixed or {"data": SourceConfig(data.source)}).items():
        if not entry.source:
            yield f"{key}.source= is not possible: {SOURCE.remedy}"
        elif (first := names.setdefault(entry.called, key)) != key:
            yield f"{key}.name={entry.called}: {first} has that name too; give one of them another name"


def _warm_start_faults(warm: WarmStartConfig) -> Iterator[str]:
    """Yield settings of a warm start that is not made."""
    for name, value in vars(WarmStartConfig()).items():
        if not warm.source and (given := getattr(warm, name)) != value:
            remedy = f"there is no warm start; give warm_start.source={SELF}, or a source of solutions"
            yield f"warm_start.{name}={show(given)}: {remedy}"


def _length_faults(config: Config, context: int) -> Iterator[str]:
    rollout = config.rollout
    for key, response in {
        "rollout.max_response_tokens": rollout.max_response_tokens,
        "eval.max_response_tokens": config.eval.max_response_tokens or 0,
    }.items():
        length = rollout.max_prompt_tokens + response
        if 0 < context < length:
            yield (
                f"rollout.max_prompt_tokens={rollout.max_prompt_tokens} and {key}={response}: {length} tokens exceed "
                f"the {context} of {config.model.path}; lower one"
            )


SAPO_SLOPE = 1.6
"""Largest value of 4 g (1 − g) ρ with g = σ(ρ − 1): 1.575, at ρ = 2.07. At a higher τ it is less."""


def slope_bound(algorithm: AlgorithmConfig, advantage: int) -> tuple[str, float | None]:
    """Return the key that bounds the surrogate's slope at advantages of a sign, 1 or −1, and the bound, or None. The
    slope is the derivative with respect to a token's log-probability, as a multiple of the advantage's size.

    clip: d min(ρA, clip(ρ)A) / d log ρ is ρA or 0. Where A > 0 it is 0 past 1 + clip_high; where A < 0 it is 0 below
    1 − clip_low, which bounds nothing, and past dual_clip. cispo: it is clip(ρ)A, at most 1 + clip_high times A for
    both signs. sapo: it is at most SAPO_SLOPE times A for both signs. At ratios of a sequence ρ is that of the whole
    sequence, and the bounds are the same.
    Where the ratio is always 1, so is the slope.
    """
    if algorithm.surrogate == "sapo":
        return "surrogate", SAPO_SLOPE if algorithm.ratio_acts else 1.0
    key = "dual_clip" if advantage < 0 and algorithm.surrogate == "clip" else "clip_high"
    if not algorithm.ratio_acts:
        return key, 1.0
    bound = getattr(algorithm, key)
    return key, bound if bound is None or key == "dual_clip" else 1 + bound


def algorithm_faults(algorithm: AlgorithmConfig) -> Iterator[str]:
    """Yield a missing bound on the gradient."""
    for advantage, sign, usual in ((1, "positive", 0.2), (-1, "negative", 3)):
        key, bound = slope_bound(algorithm, advantage)
        if bound is None:
            yield (
                f"algorithm.{key}=null: with algorithm.mismatch={algorithm.mismatch} and algorithm.steps_per_batch="
                f"{algorithm.steps_per_batch} the ratio moves away from 1, and at {sign} advantages nothing"
                f" would bound how far one token moves the weights; set it, for example to {usual}"
            )
            return
