"""What is refused before the first run of a sweep starts: runs that cannot be compared, and sources without data."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from actors.evaluation.protocol import response_limit, settings_of
from conf.errors import BadInput
from conf.load import flatten
from conf.schema import Config, among
from conf.settings import show
from launch.sweep_runs.grid import MODEL, Grid, SweepRun
from rewards.problems import sources
from rewards.problems.loading import EVAL_SEED, TRAIN_SEED

GENERATED = "reasoning_gym:"


SELECTION = ("data", "eval.problems", "eval.share", "validation.problems", "rollout.max_prompt_tokens")
"""Settings that the selection problems depend on."""

PROMPT = ("data.template", "data.system", "data.chat_settings", "data.hub_timeout_s")
"""Settings of `data` that change the prompt or the loading, and not the problems."""


def check_comparable(grid: Grid) -> None:
    """Raise BadInput if validation would choose on other problems in some runs, or if not all results of a model can be
    compared with one exam of it.
    """
    if any(run.config.validation.every and run.config.eval.problems for run in grid.runs):
        for key in _varied([_selection(run.config) for run in grid.runs]):
            raise BadInput(
                f"{key}: the runs have different values, and validation would choose their checkpoints on different"
                " problems: give one value, or validation.every=0"
            )
    models: dict[str, list[SweepRun]] = {}
    for run in grid.runs if grid.settings.benchmarks else ():
        models.setdefault(show([run.overrides.get(key) for key in MODEL]), []).append(run)
    for runs in models.values():
        for key in _varied([_sampling(run.config) for run in runs]):
            raise BadInput(
                f"{key}: the runs of a model have different values, and one exam of the base model stands for all: give"
                " one value, or benchmarks=[]"
            )


def _varied(each: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the settings that differ between runs."""
    keys = dict.fromkeys(key for settings in each for key in settings)
    return (key for key in keys if any(settings.get(key) != each[0].get(key) for settings in each))


def _selection(config: Config) -> dict[str, Any]:
    settings = flatten(asdict(config))
    return {key: value for key, value in settings.items() if among(key, SELECTION) and not among(key, PROMPT)}


def _sampling(config: Config) -> dict[str, Any]:
    """Return the settings that the samples of an exam depend on, besides the model."""
    own = {"eval.temperature": config.eval.temperature, "eval.top_p": config.eval.top_p}
    limit = {"eval.max_response_tokens": response_limit(config), "model.dtype": config.model.dtype}
    return own | limit | settings_of(config)


def check_sources(grid: Grid) -> None:
    """Raise BadInput for a source of problems that cannot be read. A generator makes only one."""
    seen = []
    for data in (run.config.data for run in grid.runs):
        for key, source, seed in (
            ("data.source", data.source, TRAIN_SEED),
            ("data.eval_source", data.eval_source, EVAL_SEED),
        ):
            what = (source, data.scan, data.size, data.parameters)
            if source and what not in seen:
                seen.append(what)
                sources.read(key, source, replace(data, size=1) if source.startswith(GENERATED) else data, seed)
