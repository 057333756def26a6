"""Combinations of settings that cannot work together."""

from conf.benchmarks import find_benchmarks
from conf.devices import devices
from conf.errors import BadInput
from conf.schema import AlgorithmConfig, Config, ShapeConfig
from conf.suggestions import hint

MOST_SAMPLES = 2**15
"""Under way at once: 1,024 problems × 16 samples, twice with a staleness of 1."""


def check(config: Config) -> None:
    """Raise BadInput for the first combination that cannot work."""
    find_benchmarks(config.benchmarks)
    known = ["auto", "cpu", *devices()]
    if config.device not in known:
        near = hint(config.device, known)
        raise BadInput(f"device={config.device}: no such device; {near}all: {', '.join(known)}")
    if config.simulate and not config.plan:
        raise BadInput(f"simulate={config.simulate}: only a plan simulates; add plan=true")
    shape = config.model.shape
    missing = [name for name, value in vars(shape).items() if value == 0 and not isinstance(value, bool)]
    if shape != ShapeConfig() and missing:
        raise BadInput(f"model.shape.{missing[0]}=0: declare the whole shape, or none of it to have it read")
    check_lengths(config, shape.context)
    size, per_update = config.data.size, config.learner.problems_per_update
    each, staleness = config.rollout.samples_per_problem, config.learner.max_staleness
    if per_update * each * (1 + staleness) > MOST_SAMPLES:
        raise BadInput(
            f"learner.problems_per_update={per_update}, rollout.samples_per_problem={each} and learner.max_staleness="
            f"{staleness}: more than {MOST_SAMPLES:,} samples would be under way at once; lower one"
        )
    if size is not None and size < per_update:
        raise BadInput(
            f"data.size={size}: less than one update takes, learner.problems_per_update={per_update}; raise it"
        )
    if config.lora.start_from and config.lora.init != "default":
        raise BadInput(
            f"lora.init={config.lora.init}: the adapter lora.start_from={config.lora.start_from} brings its A and B;"
            " leave one of them out"
        )
    check_deterministic(config)
    check_algorithm(config.algorithm)
    reward = config.reward
    if reward.accuracy == reward.format == reward.boxed == reward.cosine == 0 and not reward.custom:
        raise BadInput(
            "reward.accuracy=0, format=0, boxed=0 and cosine=0: nothing would be rewarded; give one of them a weight"
        )
    if config.eval.temperature == 0 and config.eval.n > 1:
        raise BadInput(f"eval.n={config.eval.n} with eval.temperature=0: all samples would be the same; set eval.n=1")


def check_deterministic(config: Config) -> None:
    """Raise BadInput for a setting under which a deterministic run would depend on the clock."""
    if not config.run.deterministic:
        return
    if config.learner.max_staleness:
        raise BadInput(
            f"learner.max_staleness={config.learner.max_staleness}: with run.deterministic=true no update may use"
            " groups of an older version, since how many there are is up to the clock; leave it out"
        )
    if config.budget.updates is None:
        raise BadInput(
            "budget.updates=null: with run.deterministic=true updates end the run and pace its learning rate, not the"
            " clock; set it, to 100 say"
        )


def check_lengths(config: Config, context: int) -> None:
    """Raise BadInput if a sample can outgrow the model's context (tokens, 0 while unknown) or a micro-batch."""
    rollout = config.rollout
    for key, response in {
        "rollout.max_response_tokens": rollout.max_response_tokens,
        "eval.max_response_tokens": config.eval.max_response_tokens or 0,
    }.items():
        length = rollout.max_prompt_tokens + response
        if 0 < context < length:
            raise BadInput(
                f"rollout.max_prompt_tokens={rollout.max_prompt_tokens} and {key}={response}: {length} tokens exceed "
                f"the {context} of {config.model.path}; lower one"
            )
    length = rollout.max_prompt_tokens + rollout.max_response_tokens
    if length > config.learner.tokens_per_microbatch:
        raise BadInput(
            f"learner.tokens_per_microbatch={config.learner.tokens_per_microbatch}: one sample can have {length} tokens"
            " (prompt and response); raise it, or lower rollout.max_prompt_tokens or rollout.max_response_tokens"
        )


SAPO_SLOPE = 1.6
"""The most that 4 g (1 − g) ρ comes to, with g = σ(ρ − 1): 1.575, at ρ = 2.07. At a higher τ it is less."""


def slope_bound(algorithm: AlgorithmConfig, advantage: int) -> tuple[str, float | None]:
    """Return the key that bounds the surrogate's slope at advantages of this sign, 1 or −1, and the bound; None if it
    has none. The slope is that in a token's log-probability, as a multiple of the advantage's size.

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


def check_algorithm(algorithm: AlgorithmConfig) -> None:
    """Raise BadInput for a setting that could not act beside the others, or where none bounds the gradient."""
    idle = {"surrogate": "clip", "ratio": "token", "clip_low": None, "clip_high": None, "dual_clip": None}
    wrong = [key for key, value in idle.items() if not algorithm.ratio_acts and getattr(algorithm, key) != value]
    if wrong:
        remedy = " ".join(f"algorithm.{key}={idle[key] or 'null'}" for key in wrong)
        raise BadInput(
            f"algorithm.{wrong[0]}={getattr(algorithm, wrong[0])}: with one step per batch and algorithm.mismatch="
            f"{algorithm.mismatch} old and new policy are the same, the ratio is 1 and this cannot act; set"
            f" algorithm.mismatch=bypass or algorithm.steps_per_batch=2, or {remedy}"
        )
    for advantage, sign, say in ((1, "positive", 0.2), (-1, "negative", 3)):
        key, bound = slope_bound(algorithm, advantage)
        if bound is None:
            raise BadInput(
                f"algorithm.{key}=null: with algorithm.mismatch={algorithm.mismatch} and algorithm.steps_per_batch="
                f"{algorithm.steps_per_batch} the ratio moves away from 1, and at {sign} advantages nothing"
                f" would bound how far one token moves the weights; set it, to {say} say"
            )
    clips = [key for key in ("clip_low", "clip_high", "dual_clip") if getattr(algorithm, key) is not None]
    if algorithm.surrogate == "sapo" and clips:
        raise BadInput(
            f"algorithm.{clips[0]}={getattr(algorithm, clips[0])}: algorithm.surrogate=sapo has a gate in the place"
            f" of clips, so this could not act; set {' '.join(f'algorithm.{key}=null' for key in clips)}"
        )
    if algorithm.dual_clip is not None and algorithm.surrogate == "cispo":
        raise BadInput(
            f"algorithm.dual_clip={algorithm.dual_clip}: algorithm.surrogate=cispo bounds its weight on both sides of"
            " zero advantage already; set it to null"
        )
