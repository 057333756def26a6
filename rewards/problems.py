"""Problems a run can trust: read, checked, split and tokenised before anything expensive starts."""

import os
import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Any, NamedTuple

from actors.messages import Problem
from conf.errors import BadInput
from conf.schema import Config, DataConfig
from rewards import sources
from rewards.pool import VerifierPool
from rewards.verify.answers import BOX, boxed, plain
from rewards.verify.matching import INTEGER

PROBLEM_FIELDS = ("problem", "question", "prompt")
ANSWER_FIELDS = ("answer", "solution", "final_answer")

WHOLE = r"(?s)(.*)"

TRAIN_SEED, EVAL_SEED = 0, 1
"""Of generators. Not the run's seed: runs of different seeds learn from, and are judged on, the same problems."""

EMPTY = "empty problem or answer"
NO_MATCH = "no match for data.problem_pattern"
SHOWN = "one of data.examples"
DUPLICATE = "duplicate"
HELD_OUT = "in the held-out set too"
BAD_GOLD = "gold answer does not verify"
TOO_LONG = "prompt over rollout.max_prompt_tokens"


@dataclass(frozen=True)
class ProblemSet:
    """Training and held-out problems, disjoint by text. dropped: how many rows of both were left out, by reason."""

    train: tuple[Problem, ...]
    heldout: tuple[Problem, ...]
    dropped: dict[str, int]


@dataclass(frozen=True)
class ProblemOrder:
    """The endless stream of problems: every epoch is a permutation of its own. Its state is a position, an integer."""

    problems: Sequence[Problem]
    seed: int

    def problem(self, index: int) -> Problem:
        """The problem at a position of the stream, counted from 0."""
        epoch, position = divmod(index, len(self.problems))
        return self.problems[permutation(len(self.problems), self.seed, epoch)[position]]


@lru_cache(maxsize=4)
def permutation(size: int, seed: int, epoch: int) -> tuple[int, ...]:
    """The order of 0 … size - 1 in one epoch."""
    return tuple(random.Random(f"{seed}/{epoch}").sample(range(size), size))


class Pair(NamedTuple):
    """The text of a problem and its gold answer."""

    text: str
    gold: str

    @property
    def id(self) -> str:
        """Hash of the text, so that it stays when a source grows or is reordered."""
        return blake2b(self.text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def load(config: Config, tokenizer: Any) -> ProblemSet:
    """The problems of a run, as the model will see them.

    tokenizer: of transformers, with a chat template. Problems are ordered by id, a shuffle that depends on nothing but
    their text. The held-out ones are the first `eval.problems`, of data.eval_source if there is one, so that they
    stay the same whatever data.size. Every gold answer has been verified against its own boxed form. Raises BadInput
    for a source, field, pattern or template that cannot be used, and when fewer problems are left than one update
    takes.
    """
    if tokenizer.chat_template is None:
        raise BadInput(f"model.path: '{config.model.path}' has no chat template: choose an instruction-tuned model")
    dropped: Counter[str] = Counter()
    wanted = config.eval.problems
    heldout: list[Problem] = []
    if wanted and config.data.eval_source:
        pairs = read_pairs("eval_source", config.data, EVAL_SEED, dropped)
        heldout = prepare(pairs, config, tokenizer, dropped)[:wanted]
        if not heldout:
            raise BadInput(f"data.eval_source: '{config.data.eval_source}' has no usable problem ({listed(dropped)})")
    pairs = read_pairs("source", config.data, TRAIN_SEED, dropped)
    held_ids = {problem.id for problem in heldout}
    fresh = [pair for pair in pairs if pair.id not in held_ids]
    dropped[HELD_OUT] += len(pairs) - len(fresh)
    train = prepare(fresh, config, tokenizer, dropped)
    if wanted and not config.data.eval_source:
        heldout, train = train[:wanted], train[wanted:]
    train = train[: config.data.size]
    if len(train) < config.learner.problems_per_update:
        raise BadInput(
            f"data.source: '{config.data.source}' leaves {len(train)} training problems beside {len(heldout)} held-out "
            f"ones ({listed(dropped)}), fewer than learner.problems_per_update={config.learner.problems_per_update}: "
            f"use a larger source or data.size, or a smaller eval.problems"
        )
    return ProblemSet(tuple(train), tuple(heldout), dict(+dropped))


def read_pairs(key: str, data: DataConfig, seed: int, dropped: Counter[str]) -> list[Pair]:
    r"""Distinct problems of a source, ordered by id. The gold answer of a worked solution is its last `\boxed{}`."""
    rows = sources.read(key, data, seed)
    columns = list(rows[0]) if rows else []
    problem_field = choose_field(key, "problem_field", data.problem_field, PROBLEM_FIELDS, columns)
    answer_field = choose_field(key, "answer_field", data.answer_field, ANSWER_FIELDS, columns)
    pattern = re.compile(data.problem_pattern or WHOLE)
    shown = {example.problem for example in data.examples}
    pairs: dict[str, Pair] = {}
    for row in rows:
        text, gold = as_text(row.get(problem_field)), as_text(row.get(answer_field))
        gold = (boxed(gold) or "") if BOX in gold else gold
        match = pattern.search(text)
        if not text or not gold:
            dropped[EMPTY] += 1
        elif not match or not match[1]:
            dropped[NO_MATCH] += 1
        elif (pair := Pair(match[1].strip(), gold)).text in shown:
            dropped[SHOWN] += 1
        elif pair.id in pairs:
            dropped[DUPLICATE] += 1
        else:
            pairs[pair.id] = pair
    return [pair for _, pair in sorted(pairs.items())]


def choose_field(key: str, setting: str, chosen: str, guesses: Sequence[str], columns: Sequence[str]) -> str:
    """The column to use: the chosen one, else the first guess there is."""
    for name in [chosen] if chosen else guesses:
        if name in columns:
            return name
    raise BadInput(
        f"data.{setting}: data.{key} has no field '{chosen or '|'.join(guesses)}': "
        f"set it to one of its fields ({', '.join(columns) or 'it has none, being empty'})"
    )


def as_text(value: object) -> str:
    """A field's text: strings and numbers have one, anything else counts as empty."""
    return str(value).strip() if isinstance(value, str | int | float) else ""


def prepare(pairs: list[Pair], config: Config, tokenizer: Any, dropped: Counter[str]) -> list[Problem]:
    """The problems whose gold answer verifies and whose prompt fits, in the order given."""
    sound = sound_golds({pair.gold for pair in pairs}, config)
    problems = [encode(pair, config.data, tokenizer) for pair in pairs if pair.gold in sound]
    fitting = [problem for problem in problems if len(problem.prompt_ids) <= config.rollout.max_prompt_tokens]
    dropped[BAD_GOLD] += len(pairs) - len(problems)
    dropped[TOO_LONG] += len(problems) - len(fitting)
    return fitting


def sound_golds(golds: Iterable[str], config: Config) -> set[str]:
    """Those of the gold answers that verify against their own boxed form."""
    integers = {gold for gold in golds if INTEGER.fullmatch(plain(gold))}
    others = sorted(set(golds) - integers)
    if not others:
        return integers
    with VerifierPool(config.reward, config.reward.workers or len(os.sched_getaffinity(0))) as pool:
        return integers | {gold for gold, sound in zip(others, pool.sound(others), strict=True) if sound}


def encode(pair: Pair, data: DataConfig, tokenizer: Any) -> Problem:
    """A problem under the template and the model's chat template. It brings its special tokens."""
    messages = [] if data.system is None else [{"role": "system", "content": data.system}]
    for example in data.examples:
        messages.append({"role": "user", "content": data.template.replace("{problem}", example.problem)})
        messages.append({"role": "assistant", "content": example.answer})
    messages.append({"role": "user", "content": data.template.replace("{problem}", pair.text)})
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    return Problem(pair.id, prompt, tuple(ids), pair.gold)


def listed(dropped: Counter[str]) -> str:
    """Counts of dropped rows in words."""
    return "dropped: " + (", ".join(f"{count} {reason}" for reason, count in (+dropped).items()) or "none")
