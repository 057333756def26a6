"""What values a configuration may hold: one rule a key, and the combinations that cannot work."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from conf.algorithms import check_algorithm, presets, reward_presets
from conf.benchmarks import SOURCE_FORMS, SOURCES, find_benchmarks
from conf.devices import device_names
from conf.errors import BadInput
from conf.nearest import nearest
from conf.schema import Config, ShapeConfig
from conf.sizes import DTYPE_BYTES, PROJECTIONS, VLLM_RANKS


@dataclass(frozen=True)
class Rule:
    """allows: whether a value will do. remedy: what to use instead."""

    allows: Callable[[Any], bool]
    remedy: str


def at_least(low: float) -> Rule:
    return Rule(lambda value: low <= value < math.inf, f"use {low} or more")


def above(low: float) -> Rule:
    return Rule(lambda value: low < value < math.inf, f"use a number above {low}")


def between(low: float, high: float) -> Rule:
    return Rule(lambda value: low <= value <= high, f"use a value from {low} to {high}")


def one_of(*names: str) -> Rule:
    return Rule(lambda value: value in names, f"use one of {', '.join(names)}")


def _plain_name(value: str) -> bool:
    return re.fullmatch(r"[\w+=@-][\w.+=@ -]*", value) is not None


def _one_group(pattern: str) -> bool:
    try:
        return re.compile(pattern).groups >= 1
    except re.error:
        return False


PARTS = frozenset({"accuracy", "boxed", "cosine", "format", "mean", "overlong"})
"""Names in metrics.jsonl after `reward/` that are taken."""

PLAIN_NAME = Rule(_plain_name, "use a plain folder name, without slashes or a leading dot")
SOURCE = Rule(lambda value: SOURCES.fullmatch(value) is not None, f"use {SOURCE_FORMS}")
MODULES = Rule(
    lambda value: bool(value) and all(name in PROJECTIONS and value.count(name) == 1 for name in value),
    f"list some of {', '.join(PROJECTIONS)}, each once",
)
GROUP_SIZE = Rule(lambda value: value >= 2, "use 2 or more: a group of one has no advantage to learn from")
RANK = Rule(lambda value: 1 <= value <= VLLM_RANKS[-1], f"use 1 to {VLLM_RANKS[-1]}, the largest rank vLLM serves")
TEMPLATE = Rule(lambda value: "{problem}" in value, "write {problem} where the problem belongs")
PAIR = Rule(
    lambda value: len(value) == 2 and all(math.isfinite(number) for number in value),
    "give two numbers: the values of the shortest and of the longest response",
)
CUSTOM = Rule(
    lambda value: (
        len({part.name for part in value} - PARTS) == len(value)
        and all(re.fullmatch(r"[\w.]+:\w+", part.function) and math.isfinite(part.weight) for part in value)
    ),
    "give a list of {function: module.path:function, weight: 1.0}, each function of another name, none of them "
    f"{', '.join(sorted(PARTS))}",
)
CHAT = Rule(
    lambda value: not {"conversation", "add_generation_prompt", "tokenize"} & set(value),
    "leave the conversation, add_generation_prompt and tokenize out: they are given already",
)
PATTERN = Rule(lambda value: not value or _one_group(value), "use a regular expression with one (group)")

CARDS = Rule(lambda value: all(1 <= count <= 1024 for count in value), "list numbers of cards from 1 to 1024")

RULES: dict[str, Rule] = {
    "simulate": CARDS,
    "n": at_least(1),
    "limit": at_least(1),
    "run.name": PLAIN_NAME,
    "run.folder": Rule(bool, "name a folder"),
    "run.seed": between(0, 2**31 - 1),
    "budget.hours": above(0),
    "budget.minutes": above(0),
    "budget.updates": at_least(1),
    "budget.grace_s": at_least(1),
    "budget.price_per_hour": at_least(0),
    "model.path": Rule(bool, "name a local folder, a hub id OWNER/NAME or embedded:smollm2-135m"),
    "model.dtype": one_of("auto", *DTYPE_BYTES),
    "model.shape.layers": at_least(0),
    "model.shape.hidden": at_least(0),
    "model.shape.intermediate": at_least(0),
    "model.shape.heads": at_least(0),
    "model.shape.kv_heads": at_least(0),
    "model.shape.head_dim": at_least(0),
    "model.shape.vocabulary": at_least(0),
    "model.shape.context": at_least(0),
    "data.source": SOURCE,
    "data.eval_source": Rule(lambda value: not value or SOURCE.allows(value), SOURCE.remedy),
    "data.size": at_least(1),
    "data.scan": at_least(1),
    "data.hub_timeout_s": above(0),
    "data.overlap": one_of("drop", "report_only"),
    "data.chat_settings": CHAT,
    "data.template": TEMPLATE,
    "data.problem_pattern": PATTERN,
    "lora.rank": RANK,
    "lora.alpha": at_least(1),
    "lora.dropout": between(0, 0.9),
    "lora.target_modules": MODULES,
    "rollout.samples_per_problem": GROUP_SIZE,
    "rollout.max_prompt_tokens": at_least(1),
    "rollout.max_response_tokens": at_least(1),
    "rollout.temperature": between(0.1, 2),
    "rollout.max_concurrent_samples": at_least(1),
    "rollout.actors": at_least(1),
    "rollout.kv_cache_gib": at_least(1),
    "rollout.typical_prompt_tokens": at_least(1),
    "rollout.typical_response_tokens": at_least(1),
    "learner.problems_per_update": at_least(1),
    "learner.max_staleness": at_least(0),
    "learner.learning_rate": between(1e-9, 1),
    "learner.schedule": one_of("constant", "linear", "cosine"),
    "learner.final_rate": between(0, 1),
    "learner.warmup_updates": at_least(0),
    "learner.weight_decay": between(0, 1),
    "learner.beta1": between(0, 0.9999),
    "learner.beta2": between(0, 0.99999),
    "learner.max_grad_norm": above(0),
    "learner.tokens_per_microbatch": at_least(1),
    "learner.logprob_chunk": at_least(1),
    "learner.offload": one_of("auto", "cpu", "none"),
    "learner.gradient_checkpointing": one_of("auto", "on", "off"),
    "learner.ranks": at_least(1),
    "algorithm.preset": one_of(*presets()),
    "algorithm.advantages": one_of("group", "mean_only", "leave_one_out"),
    "algorithm.surrogate": one_of("clip", "cispo"),
    "algorithm.ratio": one_of("token", "sequence"),
    "algorithm.clip_low": between(0, 1),
    "algorithm.clip_high": at_least(0),
    "algorithm.dual_clip": above(1),
    "algorithm.aggregation": one_of("token_mean", "sequence_mean", "constant"),
    "algorithm.kl": at_least(0),
    "algorithm.entropy": at_least(0),
    "algorithm.overlong_buffer": between(0, 1),
    "algorithm.steps_per_batch": at_least(1),
    "algorithm.mismatch": one_of("token_tis", "sequence_mask", "icepop", "bypass"),
    "reward.preset": one_of(*reward_presets()),
    "reward.accuracy": at_least(0),
    "reward.format": at_least(0),
    "reward.boxed": at_least(0),
    "reward.cosine": at_least(0),
    "reward.cosine_correct": PAIR,
    "reward.cosine_wrong": PAIR,
    "reward.custom": CUSTOM,
    "reward.timeout": one_of("mask", "wrong"),
    "reward.deadline_s": above(0),
    "reward.memory_mib": at_least(256),
    "reward.workers": at_least(1),
    "eval.problems": at_least(0),
    "eval.n": at_least(1),
    "eval.temperature": between(0, 2),
    "eval.top_p": between(0.01, 1),
    "eval.max_response_tokens": at_least(1),
    "validation.every": at_least(0),
    "validation.problems": at_least(1),
    "validation.share": between(0, 1),
    "canary.problems": at_least(1),
    "canary.tokens": at_least(1),
    "canary.noise_floor": above(0),
    "guard.action": one_of("warn", "rollback", "stop"),
    "guard.window": at_least(8),
    "guard.patience": at_least(1),
    "guard.limit": above(0),
    "guard.rollbacks": at_least(0),
    "curriculum.rest_epochs": at_least(0),
    "checkpoint.every": at_least(1),
    "checkpoint.keep_last": at_least(1),
    "dashboard.port": between(0, 65535),
}


def check(config: Config) -> None:
    """Raise BadInput for the first value out of range or combination that cannot work."""
    for key, rule in RULES.items():
        value = attrgetter(key)(config)
        if value is not None and not rule.allows(value):
            raise BadInput(f"{key}={value} is not possible: {rule.remedy}")
    find_benchmarks(config.benchmarks)
    _check_device(config)
    if config.simulate and not config.plan:
        raise BadInput(f"simulate={config.simulate}: only a plan simulates; add plan=true")
    _check_shape(config)
    check_lengths(config, config.model.shape.context)
    _check_data(config)
    check_algorithm(config.algorithm)
    reward = config.reward
    if reward.accuracy == reward.format == reward.boxed == reward.cosine == 0 and not reward.custom:
        raise BadInput(
            "reward.accuracy=0, format=0, boxed=0 and cosine=0: nothing would be rewarded; give one of them a weight"
        )
    if config.eval.temperature == 0 and config.eval.n > 1:
        raise BadInput(f"eval.n={config.eval.n} with eval.temperature=0: all samples would be the same; set eval.n=1")


def _check_device(config: Config) -> None:
    known = ["auto", "cpu", *device_names()]
    if config.device not in known:
        close = nearest(config.device, known)
        hint = f"nearest: {', '.join(close)}; " if close else ""
        raise BadInput(f"device={config.device}: no such device; {hint}all: {', '.join(known)}")


def _check_shape(config: Config) -> None:
    shape = config.model.shape
    missing = [name for name, value in vars(shape).items() if value == 0 and not isinstance(value, bool)]
    if shape != ShapeConfig() and missing:
        raise BadInput(f"model.shape.{missing[0]}=0: declare the whole shape, or none of it to have it read")


def check_lengths(config: Config, context: int) -> None:
    """Raise BadInput if a sample can outgrow the model's context (tokens, 0 while unknown) or a micro-batch."""
    rollout = config.rollout
    for key, response in {
        "rollout.max_response_tokens": rollout.max_response_tokens,
        "eval.max_response_tokens": config.eval.max_response_tokens or 0,
    }.items():
        both = f"rollout.max_prompt_tokens={rollout.max_prompt_tokens} and {key}={response}"
        length = rollout.max_prompt_tokens + response
        if 0 < context < length:
            raise BadInput(f"{both}: {length} tokens exceed the {context} of {config.model.path}; lower one")
    length = rollout.max_prompt_tokens + rollout.max_response_tokens
    if length > config.learner.tokens_per_microbatch:
        raise BadInput(
            f"learner.tokens_per_microbatch={config.learner.tokens_per_microbatch}: one sample can have {length} tokens"
            " (prompt and response); raise it, or lower rollout.max_prompt_tokens or rollout.max_response_tokens"
        )


def _check_data(config: Config) -> None:
    size, per_update = config.data.size, config.learner.problems_per_update
    if size is not None and size < per_update:
        raise BadInput(
            f"data.size={size}: less than one update takes, learner.problems_per_update={per_update}; raise it"
        )
