"""Reads what an earlier run has learned about the problems of this one."""

from collections.abc import Iterable
from dataclasses import asdict
from math import ceil

from actors.coordinator.rules.pass_rates import MOST_GROUPS
from actors.messages import Problem
from actors.storage.files import REMEDY
from actors.storage.run_record import RunRecord
from actors.storage.state import PassRateRow
from conf.errors import BadInput
from conf.load import flatten
from conf.parsing import path_of, read_json_lines
from conf.schema import Config, among, marked

SAME = (
    *("lora.start_from", "rollout.max_response_tokens", "reward", "data.mixture"),
    *("data.template", "data.system", "data.few_shot", "data.chat_settings"),
)
"""Settings beside the model that a problem's pass rate depends on."""


def earlier_pass_rates(config: Config, problems: Iterable[Problem] | None = None) -> list[PassRateRow]:
    """Return the pass rates of `data.pass_rates` for these problems, as known before the first update; none without.
    Raises BadInput unless a run with the same model, prompts and reward has tried some of them.

    problems: None only has the file checked.
    """
    given, weight = config.data.pass_rates, config.data.pass_rates_weight
    if not given:
        return []
    run, where = RunRecord(path_of(given, "data.pass_rates")), f"data.pass_rates={given}"
    if not run.exists or not run.pass_rates.is_file():
        raise BadInput(f"{where}: this is no folder of a run with a {run.pass_rates.name}; give one, or leave it out")
    if weight == 1 and (other := _other(run.config(), config)):
        raise BadInput(f"{where}: that run has another {other}; leave it out, or give data.pass_rates_weight=0.2")
    wanted, seen, found = {problem.id for problem in problems or ()}, set[str](), list[PassRateRow]()
    most = MOST_GROUPS * config.rollout.samples_per_problem
    for row in read_json_lines(run.pass_rates, PassRateRow, REMEDY):
        if row.problem in seen:
            raise BadInput(f"{run.pass_rates} has the problem {row.problem} twice; {REMEDY}")
        if problems is None or row.problem in wanted:
            seen.add(row.problem)
        if row.problem in wanted:
            known = {"tries": ceil(weight * min(row.tries, most)), "first": row.rate, "version": 0, "prompt": ""}
            found.append(row.model_copy(update=known))
    if not seen:
        raise BadInput(f"{where}: that run has tried none of the training problems; leave it out")
    return found


def _other(theirs: Config, ours: Config) -> str:
    """Name the first setting of model or SAME in which two runs differ; empty if there is none. The model of a preview
    has no pin.
    """
    which = "model.pin" if theirs.model.pin and ours.model.pin else "model.path"
    before, now = (flatten(asdict(each)) for each in (theirs, ours))
    free = marked("resumable")
    keys = [which, *(key for key in before | now if among(key, SAME) and not among(key, free))]
    return next((key for key in keys if before.get(key) != now.get(key)), "")
