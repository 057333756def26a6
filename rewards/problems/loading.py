"""Reads, checks, splits and tokenizes the problems of a run or a benchmark before anything expensive starts."""

import json
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from itertools import chain
from math import ceil
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar

from microbudget_rl.actors.messages import HELD_OUT_SETS, EvaluationSet, FilteredRow, Problem, ProblemSet
from microbudget_rl.actors.models.files import stop_token_ids
from microbudget_rl.actors.models.prompts import control_tokens, render_prompt, tokenized
from microbudget_rl.actors.storage.files import replace_text
from microbudget_rl.conf.catalogue import HELD_OUT, Benchmark
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.schema import Config, DataConfig
from microbudget_rl.conf.settings import changed
from microbudget_rl.rewards.killable_worker import Crashed, Failed, Hung, KillableWorker, Limits
from microbudget_rl.rewards.pool import VerifierPool
from microbudget_rl.rewards.problems import sources
from microbudget_rl.rewards.problems.contamination import near_duplicates
from microbudget_rl.rewards.problems.rows import (
    EMPTY,
    NO_MATCH,
    NO_TEXT,
    AnyProblem,
    RawProblem,
    distinct,
    filtered_row,
    raw_problems,
)
from microbudget_rl.rewards.weighted_sum import RewardFunction

Sourced = TypeVar("Sourced", Problem, RawProblem)

TRAIN_SEED, EVAL_SEED = 0, 1
"""Seeds of the generators. They do not depend on run.seed: runs of all seeds share their problems."""

COLUMNS = ("problem_field", "answer_field")
"""Settings of `data` that name a column."""

OVERLAP_FILTERED = "overlaps the held-out set"
OVERLAP_KEPT = "overlaps the held-out set, but stays"
OVERLAP_REPORTED = "overlaps the reported problems, chooses nothing"
CHOSE = "chose the result of the run, or a near duplicate"

BAD_GOLD = "reference answer does not verify"
TOO_LONG = "prompt over rollout.max_prompt_tokens"
CONTROL = "problem holds a special token of the model"

RENDERING = Limits(deadline_s=2, memory=2**30)
"""Limits for one prompt, which normally takes milliseconds, with transformers."""

PROBES = ("What is 3 + 4?", "What is 5 + 6?")

MOST_LISTED = 500
"""Listed rows per reason: a generator filters tens of thousands, which would be megabytes in every run."""

REMEDIES = {
    NO_MATCH: "give another problem_pattern, or none",
    OVERLAP_FILTERED: "give data.contamination=report_only",
    CONTROL: "take the model's special tokens out of the problems",
    TOO_LONG: "raise rollout.max_prompt_tokens",
    BAD_GOLD: "give answers that the grader can read (docs/reference/grading.md)",
    EMPTY: "name the columns (problem_field, answer_field)",
    NO_TEXT: "write problems and answers as text",
}
"""Remedy if most rows are filtered for a reason."""


_ended = set[str]()
"""Templates, with their settings, that have ended: a worker has to import transformers, which takes a second or two."""


def check_chat(config: Config, tokenizer: Any) -> None:
    """Raise BadInput for a tokenizer without `model.stop_tokens`, or without a sound chat template, which is a foreign
    program: it may fail, or never end.
    """
    path, data = config.model.path, config.data
    if not tokenizer.chat_template:
        raise BadInput(f"model.path: '{path}' has no chat template: choose an instruction-tuned model")
    stop_token_ids(config.model, tokenizer)
    template = repr((tokenizer.chat_template, data.chat_settings))
    if template not in _ended:
        with closing(KillableWorker(RENDERING)) as worker:
            try:
                worker.run(render_prompt, (), PROBES[0], data, tokenizer)
            except Failed:
                pass  # it has ended, and is refused below
            except (Hung, Crashed):
                raise BadInput(
                    f"model.path: the chat template of '{path}' does not end within {RENDERING.deadline_s} s and "
                    f"{RENDERING.memory // 2**20} MiB: choose another model, or correct data.chat_settings"
                ) from None
    _ended.add(template)
    first, second = (render_prompt((), probe, data, tokenizer) for probe in PROBES)
    if first == second:
        raise BadInput(f"model.path: the chat template of '{path}' omits the problem: choose another model")


def load_problems(config: Config, tokenizer: Any) -> ProblemSet:
    """Load the problems of a run, as the model will see them; see `split_problems`."""
    return split_problems(config, tokenizer)[0]


def load_held_out(config: Config, tokenizer: Any) -> ProblemSet:
    """Load the problems of a run without its benchmarks, which do not change the held-out ones."""
    return load_problems(changed(config, {"eval.benchmarks": []}), tokenizer)


def split_problems(config: Config, tokenizer: Any) -> tuple[ProblemSet, list[RawProblem], list[AnyProblem]]:
    """Load the problems to train on and to hold out. Return them; those of the training sources, as these have them;
    and all that nothing may learn from. Without a tokenizer, problems have no prompt, and all count as usable.

    Problems are ordered by id, a shuffle that depends on their text alone. Held out are the first `eval.problems`, and
    with `validation.every` the next `validation.problems` (see `hold_out`), from data.eval_source if there is one, else
    at most `eval.share` of all; data.size and `eval.benchmarks` do not change them. Training problems that overlap them
    are filtered. Every gold answer verifies against its own boxed form, unless the reward weighs none. Raises BadInput
    for a source, field, pattern or template that cannot be used, and if fewer problems remain than one update takes.
    """
    if tokenizer:
        check_chat(config, tokenizer)
    filtered, any_gold = list[FilteredRow](), not config.reward.weighs_answers
    held_out: tuple[list[Problem], list[Problem]] = [], []
    if eval_source := config.data.eval_source if config.eval.problems else "":
        raw = read_problems("data.eval_source", eval_source, config.data, EVAL_SEED, filtered)
        usable = usable_problems("data.eval_source", raw, config, tokenizer, filtered, any_gold)
        if not usable:
            raise BadInput(f"data.eval_source: '{eval_source}' has no usable problem ({filter_reasons(filtered)})")
        held_out = hold_out("data.eval_source", usable, config, filtered)
    raw = read_all(config, filtered)
    train = usable_problems(config.data.key, raw, config, tokenizer, filtered, any_gold)
    if config.eval.problems and not eval_source:
        held_out = hold_out(config.data.key, train, config, filtered)
        ids = {one.id for one in chain(*held_out)}
        train = [one for one in train if one.id not in ids]
    benchmarks = [
        load_benchmark(benchmark, config, tokenizer, benchmark.limit, held_out[1])
        for benchmark in config.eval.resolved_benchmarks
    ]
    others: list[AnyProblem] = [*chain(*held_out), *chain(*(loaded.raw for loaded in benchmarks))]
    if others:
        train = without_overlaps(train, others, config.data.contamination, filtered)
    train = limited(train, config.data)
    check_number(Counter(one.source for one in train), sum(map(len, held_out)), config, filtered)
    sets = tuple(EvaluationSet(loaded.benchmark.name, loaded.benchmark.n, loaded.problems) for loaded in benchmarks)
    numbers = {
        f"{loaded.benchmark.name}: {why}": number
        for loaded in benchmarks
        for why, number in loaded.filtered_counts.items()
    }
    reported, selection = map(tuple, held_out)
    problems = ProblemSet(
        tuple(train), reported, counts(filtered) | numbers, tuple(filtered), selection, benchmarks=sets
    )
    return problems, raw, others


@dataclass(frozen=True)
class BenchmarkProblems:
    """A benchmark's problems as the model will see them.

    filtered_counts: number of filtered rows, by reason
    digest: of the held-out problems only: that of HELD_OUT_SETS in `ProblemSet`
    raw: all problems of the source, as it has them
    """

    benchmark: Benchmark
    problems: tuple[Problem, ...]
    filtered_counts: dict[str, int]
    digest: str = ""
    raw: Sequence[RawProblem] = ()


def load_benchmark(
    benchmark: Benchmark, config: Config, tokenizer: Any, limit: int | None = None, chose: Sequence[AnyProblem] = ()
) -> BenchmarkProblems:
    """Load the first `limit` problems of a benchmark, by id, without those that chose the policy to evaluate, and their
    near duplicates.

    chose: the former. Raises BadInput for a source without a usable problem.
    """
    if benchmark.source == HELD_OUT:
        known = load_held_out(config, tokenizer)
        if not known.heldout:
            raise BadInput(f"benchmarks={HELD_OUT}: eval.problems={config.eval.problems} holds out none; raise it")
        numbers = counts([row for row in known.filtered if row.source == "eval_source"])
        return BenchmarkProblems(benchmark, known.heldout[:limit], numbers, known.digests[HELD_OUT_SETS])
    check_chat(config, tokenizer)
    filtered: list[FilteredRow] = []
    raw = read_benchmark(benchmark, config.data, filtered, limit)
    used = set().union(*near_duplicates(chose, raw))
    filtered += [filtered_row(benchmark.key, CHOSE, raw[index]) for index in sorted(used)]
    rest = [one for index, one in enumerate(raw) if index not in used]
    problems = usable_problems(benchmark.key, rest, config, tokenizer, filtered)[:limit]
    if not problems:
        raise BadInput(f"{benchmark.key}={benchmark.source}: it has no usable problem ({filter_reasons(filtered)})")
    return BenchmarkProblems(benchmark, tuple(problems), counts(filtered), raw=raw)


def read_benchmark(
    benchmark: Benchmark, data: DataConfig, filtered: list[FilteredRow], limit: int | None = None
) -> list[RawProblem]:
    """Read the distinct problems of a benchmark, ordered by id. limit: number of problems that a generator makes."""
    parameters = data.parameters if benchmark.source == data.source else {}  # those of another generator
    data = replace(data, problem_pattern="", scan=None, size=limit, parameters=parameters)
    rows = sources.read(benchmark.key, benchmark.source, data, EVAL_SEED)
    columns: dict[str, Any] = {name: value for name in COLUMNS if (value := getattr(benchmark, name))}
    data = replace(with_columns(data, rows), **columns)
    return distinct(raw_problems(rows, benchmark.key, data, filtered), benchmark.key, filtered)


def count(benchmark: Benchmark, config: Config, limit: int | None) -> int | None:
    """Return the number of a benchmark's problems, found without a network; None if it is not known."""
    size = config.eval.problems if benchmark.source == HELD_OUT else benchmark.problems
    if benchmark.source.startswith("file:"):
        size = len(read_benchmark(benchmark, config.data, []))
    return size if size is None or limit is None else min(size, limit)


def with_columns(data: DataConfig, rows: Sequence[sources.Row]) -> DataConfig:
    """Return the settings for another source: columns that it lacks are guessed."""
    guessed: dict[str, Any] = {name: "" for name in COLUMNS if getattr(data, name) not in rows[0].fields}
    return replace(data, **guessed)


def hold_out(
    key: str, problems: list[Problem], config: Config, filtered: list[FilteredRow]
) -> tuple[list[Problem], list[Problem]]:
    """Return the held-out problems of a source: those that are reported, then those that choose the result.

    The reported ones do not depend on `validation`, where there are enough for both; otherwise both get fewer, in
    proportion. None of one is a near duplicate of the other's. key: the setting that names the source.
    """
    separate = key == "data.eval_source"
    most = len(problems) if separate else int(len(problems) * config.eval.share)
    reported, selecting = config.eval.problems, config.validation_problems
    if selecting and most < reported + selecting:
        reported = min(max(round(most * reported / (reported + selecting)), 1), most - 1)
        selecting = most - reported
    reported = max(min(reported, most), 0)
    shown, rest = problems[:reported], problems[reported:]
    if not selecting:
        return shown, []
    overlap = set().union(*near_duplicates(shown, rest))
    if separate:
        filtered += [filtered_row(key, OVERLAP_REPORTED, rest[index]) for index in sorted(overlap)]
    choosing = [one for index, one in enumerate(rest) if index not in overlap][:selecting]
    if not shown or not choosing:
        raise BadInput(
            f"validation.every={config.validation.every}: {key} holds out {most} problems, too few for held-out"
            " and separate validation problems, near duplicates aside: use a larger source, or give validation.every=0"
        )
    return shown, choosing


def check_number(by_source: Mapping[str, int], heldout: int, config: Config, filtered: Sequence[FilteredRow]) -> None:
    """Raise BadInput, with the setting to change, for fewer training problems than an update or a source needs.

    by_source: numbers of training problems.
    """
    train, needed, weights = sum(by_source.values()), config.learner.problems_per_update, config.data.weights
    for name, weight in weights.items() if train >= needed else ():
        least = ceil(needed * weight / sum(weights.values()) - 1e-9)  # in an update
        if by_source.get(name, 0) < least:
            source_reasons = filter_reasons([row for row in filtered if row.source == f"mixture.{name}"])
            raise BadInput(
                f"data.mixture: {by_source.get(name, 0)} problems of '{name}' are left to train on ({source_reasons}),"
                f" fewer than the {least} of an update: use a larger source, lower its weight, eval.problems or"
                " eval.share, or leave it out"
            )
    if train >= needed:
        return
    reasons = Counter(row.reason for row in filtered if row.source != "eval_source" and row.reason != OVERLAP_KEPT)
    remedies = [REMEDIES[reason] for reason, count in reasons.most_common(1) if reason in REMEDIES and count >= train]
    if heldout and not config.data.eval_source:
        remedies.append("lower eval.problems or eval.share")
    if train:
        remedies.append(f"give learner.problems_per_update={train}")
    raise BadInput(
        f"{config.data.key}: '{config.data.origin}' leaves {train} training problems beside {heldout} held-out ones "
        f"({filter_reasons(filtered)}), fewer than learner.problems_per_update={needed}: "
        f"{', or '.join([*remedies, 'use a larger source'])}"
    )


def read_all(config: Config, filtered: list[FilteredRow]) -> list[RawProblem]:
    """Read the distinct training problems of all sources, in the order in which they are held out: by id, or in a
    mixture `by_weight`, beyond `eval.share` of a source last.
    """
    raw = list[RawProblem]()
    for number, (name, data) in enumerate(config.data.by_source.items()):
        key = f"data.mixture[{number}].source" if name else "data.source"
        raw += raw_problems(sources.read(key, data.source, data, TRAIN_SEED), key, data, filtered, name)
    return by_weight(distinct(raw, config.data.key, filtered), config.data, config.eval.share)


def by_weight(problems: Sequence[Sourced], data: DataConfig, share: float = 1.0) -> list[Sourced]:
    """Return problems with as many of each source as it has weight, as long as a share of all its problems lasts."""
    turns, by_source = [], {name: [one for one in problems if one.source == name] for name in data.weights}
    for name, weight in data.weights.items():
        turns += [
            (number > share * len(by_source[name]), number / weight, one)
            for number, one in enumerate(by_source[name], 1)
        ]
    return [one for *_, one in sorted(turns, key=itemgetter(0, 1))]


def limited(train: Sequence[Problem], data: DataConfig) -> list[Problem]:
    """Return the first `data.size` problems of each source, `by_weight`."""
    by_source = {
        name: [one for one in train if one.source == name][: settings.size] for name, settings in data.by_source.items()
    }
    return by_weight([*chain(*by_source.values())], data)


def read_problems(key: str, source: str, data: DataConfig, seed: int, filtered: list[FilteredRow]) -> list[RawProblem]:
    """Read the distinct problems of a source, ordered by id. key: the setting that names it. seed: for a generator."""
    return distinct(raw_problems(sources.read(key, source, data, seed), key, data, filtered), key, filtered)


def without_overlaps(
    problems: list[Sourced], heldout: Sequence[AnyProblem], overlap: str, filtered: list[FilteredRow]
) -> list[Sourced]:
    """Filter training problems that overlap held-out ones, or only list them if `overlap` is report_only."""
    overlapping = set().union(*near_duplicates(heldout, problems))
    reason = OVERLAP_FILTERED if overlap == "drop" else OVERLAP_KEPT
    filtered += [filtered_row("data.source", reason, problems[index]) for index in sorted(overlapping)]
    return problems if overlap == "report_only" else [one for i, one in enumerate(problems) if i not in overlapping]


def usable_problems(
    key: str, raw: list[RawProblem], config: Config, tokenizer: Any, filtered: list[FilteredRow], any_gold: bool = False
) -> list[Problem]:
    """Return, in order, the problems with a verified gold answer, a prompt that fits and no special token.

    any_gold: whether any gold answer will do, as for a reward that weighs none: a user's function reads it.
    """
    if tokenizer is None:
        return [Problem(one.id, "", (), one.gold, one.grader, source=one.source, text=one.text) for one in raw]
    problems, controls, data_by_source = [], control_tokens(tokenizer), config.data.by_source
    prompts = [
        render_prompt(one.turns[:-1], one.text, data_by_source.get(one.source, config.data), tokenizer)
        for one in sources.progress(raw, f"{key}: prompts rendered")
    ]
    token_objects: dict[int, int] = {}  # one object for each token id: a million prompts have a hundred million
    sound_ones = [True] * len(raw) if any_gold else golds_that_verify(raw, config)
    tokens = sources.progress(tokenized(prompts, tokenizer), f"{key}: prompts tokenized")
    for one, sound, prompt, token_ids in zip(raw, sound_ones, prompts, tokens, strict=True):
        ids = tuple(token_objects.setdefault(token, token) for token in token_ids)
        reason = ""
        if not sound:
            reason = BAD_GOLD
        elif any(token in text for text in one.texts for token in controls):
            reason = CONTROL
        elif len(ids) > config.rollout.max_prompt_tokens:
            reason = TOO_LONG
        if reason:
            filtered.append(filtered_row(key, reason, one))
            continue
        fields = {**one.fields, "data_source": one.source} if config.data.mixture else one.fields
        columns = {"columns": json.dumps(fields, default=lasting)} if config.reward.custom else {}
        problems.append(Problem(one.id, prompt, ids, one.gold, one.grader, source=one.source, text=one.text, **columns))
    return problems


def lasting(value: Any) -> Any:
    """Return a value that JSON lacks in a form that is the same in every process: sets sorted, without addresses."""
    return sorted(map(str, value)) if isinstance(value, set | frozenset) else re.sub(" at 0x[0-9a-f]+", "", str(value))


def golds_that_verify(raw: Sequence[RawProblem], config: Config) -> list[bool]:
    """Return whether each gold answer verifies against its own boxed form."""
    if not raw:
        return []
    with VerifierPool(RewardFunction(config.reward), config.reward.workers or len(os.sched_getaffinity(0))) as pool:
        golds = ((one.gold, one.grader) for one in sources.progress(raw, "reference answers verified"))
        return pool.check_golds(golds)


def counts(filtered: Sequence[FilteredRow]) -> dict[str, int]:
    return dict(Counter(row.reason for row in filtered))


def filter_reasons(filtered: Sequence[FilteredRow]) -> str:
    """Return how many rows were filtered, and why, as text."""
    numbers = counts([row for row in filtered if row.reason != OVERLAP_KEPT])
    return "filtered: " + (", ".join(f"{count} {reason}" for reason, count in numbers.items()) or "none")


def write_listing(path: Path, filtered: Sequence[FilteredRow]) -> None:
    """Write the filtered rows, one JSON object per line, at most MOST_LISTED per reason."""
    listed: dict[str, list[str]] = {}
    for row in filtered:
        listed.setdefault(row.reason, []).append(json.dumps(asdict(row)) + "\n")
    lines = chain(*(rows[:MOST_LISTED] for rows in listed.values()))
    replace_text(path, "".join(lines))
