"""Finds what the warm start draws from: training problems to sample, or problems with worked solutions."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from microbudget_rl.actors.messages import FilteredRow, Problem, ProblemSet, Sample
from microbudget_rl.actors.models.files import stop_token_ids
from microbudget_rl.actors.models.prompts import control_tokens, render_prompt, tokenized
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.schema import Config
from microbudget_rl.rewards.problems import sources
from microbudget_rl.rewards.problems.loading import (
    TRAIN_SEED,
    split_problems,
    usable_problems,
    with_columns,
    without_overlaps,
)
from microbudget_rl.rewards.problems.rows import (
    FINAL,
    AnyProblem,
    RawProblem,
    as_text,
    distinct,
    raw_problems,
    solution_field,
)
from microbudget_rl.rewards.verify.text.extraction import boxed
from microbudget_rl.rewards.weighted_sum import CLOSE, OPEN

KEY = "warm_start.source"

TRIED = 8
"""Problems of a source that are verified and tokenized per demonstration asked for, our choice: some are left out."""


def load_with_candidates(config: Config, tokenizer: Any) -> ProblemSet:
    """Load the problems of a run, with the candidates of its warm start and their solutions.

    Raises BadInput as `split_problems` does, and for a warm start without a candidate.
    """
    problems, raw, heldout = split_problems(config, tokenizer)
    if not config.warm_start.source:
        return problems
    if config.warm_start.from_itself:
        candidates, solutions = _with_examples(problems.train, raw, config, tokenizer), list[Sample]()
    else:
        solved = _with_solutions(heldout, config, tokenizer)
        candidates, solutions = [*solved], [*solved.values()]
    if not candidates:
        raise BadInput(
            f"{KEY}: '{config.warm_start.source}' has no usable problem: with a prompt, examples of warm_start.few_shot"
            f" included, up to rollout.max_prompt_tokens={config.rollout.max_prompt_tokens} long, a solution up to"
            " rollout.max_response_tokens, no special token, and not held out"
        )
    return replace(problems, candidates=tuple(candidates), solutions=tuple(solutions))


def _with_examples(
    train: Sequence[Problem], raw: Sequence[RawProblem], config: Config, tokenizer: Any
) -> list[Problem]:
    """Return the training problems that the warm start's examples do not solve, each with a prompt that shows them."""
    shown, most = config.warm_start.few_shot, config.rollout.max_prompt_tokens
    shows = {name: replace(data, few_shot=[*data.few_shot, *shown]) for name, data in config.data.by_source.items()}
    texts, known = {example.problem for example in shown}, {one.id: one for one in raw}
    rest = [(problem, known[problem.id]) for problem in train if known[problem.id].text not in texts]
    prompts = [render_prompt(one.turns[:-1], one.text, shows[one.source], tokenizer) for _, one in rest]
    return [
        replace(problem, prompt=prompt, prompt_ids=tuple(ids))
        for (problem, _), prompt, ids in zip(rest, prompts, tokenized(prompts, tokenizer), strict=True)
        if len(ids) <= most
    ]


def _with_solutions(heldout: Sequence[AnyProblem], config: Config, tokenizer: Any) -> dict[Problem, Sample]:
    """Return the problems of the warm start's source that are not held out, each with the response to learn."""
    source, filtered = config.warm_start.source, list[FilteredRow]()
    same = {name: one for name, one in config.data.by_source.items() if one.source == source}
    name, source_data = next(iter(same.items()), ("", config.data))
    rows = sources.read(KEY, source, source_data, TRAIN_SEED)
    data = replace(with_columns(source_data, rows), problem_pattern=source_data.problem_pattern if same else "")
    field, controls = solution_field(KEY, config.warm_start.solution_field, rows), control_tokens(tokenizer)
    readable = raw_problems(rows, KEY, data, filtered, name)
    raw = distinct(readable, KEY, filtered)[: TRIED * config.warm_start.demonstrations]
    raw = without_overlaps(raw, heldout, "drop", filtered)
    known = {one.id: one for one in raw}
    end = [*stop_token_ids(config.model, tokenizer), tokenizer.eos_token_id][0]
    solved = dict[Problem, Sample]()
    for problem in usable_problems(KEY, raw, config, tokenizer, filtered):
        one = known[problem.id]
        solution = as_text(one.fields.get(field))
        text = response_of(solution, one.gold, config, opened=problem.prompt.rstrip().endswith(OPEN))
        ids = (*tokenizer(text, add_special_tokens=False)["input_ids"], end)
        fits = len(ids) <= config.rollout.max_response_tokens
        if solution and fits and not any(token in text for token in controls):
            solved[problem] = Sample(ids, (), text, "stop")
    return solved


def response_of(solution: str, gold: str, config: Config, *, opened: bool) -> str:
    r"""Return the response to learn from a solution. Where the solution states its own answer, that one is boxed.

    opened: whether the prompt ends with a think tag.
    """
    body, mark, last = re.sub("<<[^<>]*>>", "", solution).rpartition(FINAL)  # GSM8K's marks of a calculator
    if not mark or "\n" in last.strip():  # a heading in Markdown
        body, last = solution, boxed(solution) or gold
    body, answer = body.strip(), last.strip()
    box = f"\\boxed{{{answer}}}"
    if (opened or config.reward.format or config.reward.after_thinking) and CLOSE not in body:
        return "".join(("" if opened else f"{OPEN}\n", f"{body}\n{CLOSE}\n{box}"))
    return body if (boxed(body.rpartition(CLOSE)[2]) or "").strip() == answer else f"{body}\n{box}"
