"""Finds and checks model, adapter, problems and folder of an evaluation before anything expensive starts."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from actors.evaluation.evaluator import PolicySamples
from actors.evaluation.folder import EvaluationFolder, protocol_of
from actors.messages import APART, AdapterRef
from actors.models.adapters import adopt_adapter, pinned
from actors.models.files import load_tokenizer, locate, shape_from_config
from actors.runtime.placement import Placement, place_engines
from actors.runtime.process import VLLM_BUILDS, software_versions
from actors.storage.documents import Protocol
from actors.storage.folders import claim, is_marked
from actors.storage.run_record import RunRecord
from conf.catalogue import find_benchmarks
from conf.checks import check_lengths
from conf.command import near
from conf.errors import BadInput
from conf.load import run_of
from conf.schema import CommandLine
from conf.settings import changed
from launch.hardware.machine import Machine, check_build
from launch.plan.plan import possible_samples
from launch.plan.refusal import check_engines
from launch.session.admission import check_problems, result_of, take_over
from rewards.pool import check_reward_functions
from rewards.problems.loading import BenchmarkProblems, load_benchmark, load_held_out
from rewards.problems.rows import RawProblem
from rewards.weighted_sum import reward_function


@dataclass(frozen=True, kw_only=True)
class PreparedEvaluation:
    """An evaluation that can start.

    samples: each benchmark, with the samples of the base model and, if there is one, of the adapter.
    """

    config: CommandLine
    folder: EvaluationFolder
    model_path: str
    placement: Placement
    protocol: Protocol
    samples: list[tuple[BenchmarkProblems, list[PolicySamples]]]

    @property
    def policies(self) -> list[PolicySamples]:
        return [policy for _, policies in self.samples for policy in policies]

    @property
    def complete(self) -> bool:
        return all(policy.rounds == policy.n for policy in self.policies)


def prepare(config: CommandLine, machine: Machine, console: Console) -> PreparedEvaluation | None:
    """Find and check everything, and only then touch the folder. Return None if only the plan was requested."""
    check_request(config, machine)
    run = run_of(config.adapter)
    if run:
        config = changed(config, {"adapter": str(result_of(Path(config.adapter), f"adapter={config.adapter}"))})
    folder = EvaluationFolder.of(config, run)
    config = pinned(folder.as_begun(config), config.adapter)
    model_path = locate(config.model)
    shape = shape_from_config(model_path)
    check_lengths(config, shape.max_position_embeddings)
    config, adapter = adopt_adapter(config, config.adapter, model_path)
    config = changed(config, {"rollout.max_concurrent_samples": possible_samples(config, machine)[-1]})
    placement = place_engines(machine.cores, machine.gpus)
    if config.reward.workers is not None:
        placement = replace(placement, reward_workers=config.reward.workers)
    check_engines(config, shape, machine, placement)
    if run:
        console.print(f"Settings of the run in {near(run)}")
    tokenizer = load_tokenizer(model_path, config.model.path)
    chose = [RawProblem(text, gold) for text, gold in RunRecord(run).selection().values()] if run else []
    if not run and config.validation.every and is_marked(Path(config.run.folder), "sweep"):  # for the sweep's runs
        chose = [RawProblem(problem.text, problem.gold) for problem in load_held_out(config, tokenizer).selection]
    benchmarks = [
        load_benchmark(benchmark, config, tokenizer, config.limit, chose)
        for benchmark in find_benchmarks(config.benchmarks)
    ]
    for each in benchmarks:
        if run and each.digest:
            otherwise = "name other benchmarks, since it may have trained on these problems"
            check_problems(config, RunRecord(run), {APART: each.digest}, otherwise)
        filtered = "".join(f"; {count} filtered: {reason}" for reason, count in each.filtered_counts.items())
        by = ", by base model and adapter" if adapter else ""
        console.print(f"{each.benchmark.name}: {len(each.problems)} problems × {config.n} samples{by}{filtered}")
    if config.plan:
        return None
    problems = [problem for each in benchmarks for problem in each.problems]
    for wall in check_reward_functions(reward_function(config), problems):
        console.print(f"Warning: this kernel has no {wall}")
    protocol = protocol_of(config, model_path, adapter)
    claim(folder.path.parent, "run")
    take_over(folder.path, "evaluation", f"the evaluation {config.run.name!r}", anew=config.run.overwrite)
    folder.begin(config, protocol)
    if config.base:
        folder.take_base(Path(config.base), protocol, (each.benchmark.name for each in benchmarks))
    adapters = {"base": None} | ({"adapter": AdapterRef(0, 0, str(adapter.folder))} if adapter else {})
    samples = []
    for each in benchmarks:
        files = {name: folder.path / "samples" / f"{each.benchmark.name}-{name}.jsonl" for name in adapters}
        own = [PolicySamples(each.problems, config.n, adapters[name], file) for name, file in files.items()]
        samples.append((each, own))
    return PreparedEvaluation(
        config=config,
        folder=folder,
        model_path=model_path,
        placement=placement,
        protocol=protocol,
        samples=samples,
    )


def check_request(config: CommandLine, machine: Machine) -> None:
    """Raise BadInput for mistakes that do not depend on the model."""
    if not machine.present:
        raise BadInput(f"device={config.device}: this machine has no {machine.name}; leave it out")
    check_build(config, machine, software_versions(VLLM_BUILDS))
    if not config.benchmarks:
        raise BadInput("benchmarks=[]: nothing to evaluate on; name some, such as benchmarks=[aime24,amc23]")
    if config.eval.temperature == 0 and config.n > 1:
        raise BadInput(f"n={config.n} with eval.temperature=0: all samples would be the same; set n=1")
    if not os.path.lexists(config.adapter) and (run := run_of(config.adapter)):
        names = ", ".join(each.name for each in RunRecord(run).checkpoints.all) or "no checkpoint yet"
        raise BadInput(
            f"adapter={config.adapter}: the run in {near(run)} has {names}; name one, or resume it until it has one"
        )
