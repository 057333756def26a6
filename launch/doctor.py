"""Check whether a run can start on this machine, how fast it is, and whether the model can learn from the data.

    python launch/doctor.py conf=NAME [key=value ...] [measure=true|false|signal|all] [report=true]

Examples:

    python launch/doctor.py conf=r256_instruct                  # on a rented GPU, before a long run
    python launch/doctor.py conf=r256_instruct measure=false    # without measuring
    python launch/doctor.py conf=gsm8k measure=signal signal.minutes=5    # is it worth a day?
    python launch/doctor.py conf=gsm8k report=true              # everything, in one file for an issue

The check of driver, GPUs, Python, compiler, disk, memory and the model takes seconds. Then the run's own engine and
learner work for a minute or two. The doctor prints the number of updates that the recipe would make, and keeps the
measurement for later plans. The exit code is 1 if something forbids a run.

`measure=signal` samples training problems as the run would, for `signal.minutes` at most, and answers whether the run
is worth it, with reason and remedy. The exit code is then 3 if it is not. `measure=all` does both.

`report=true` fetches the model, makes three updates of the recipe, checks and measures; in a second, brief run it kills
an engine by kill -9. It writes runs/doctor-NAME.tar.gz: plan, times, memory and the ends of all logs, without names of
users or machines. After the download it takes at most 15 minutes. If something fails, leave one thing out at a time:
run.nvidia_mps=off, model.shared_weights=off, learner.fused_kernels=false, rollout.enforce_eager=true,
VLLM_USE_V2_MODEL_RUNNER=0 in the environment (vLLM's older runner). With adapter_check.at_start=warn, a run goes on if
the adapter check at an engine's start fails.
"""

if __name__ == "__main__":
    import microbudget_rl.conf.first  # noqa: F401

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.text import Text

from microbudget_rl.actors.errors import ActorDied, Halted, root_cause
from microbudget_rl.actors.formats import duration
from microbudget_rl.actors.models.files import locate
from microbudget_rl.actors.runtime.supervision import Record
from microbudget_rl.conf.command import PlainConsole, command, near
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.load import command_line as read
from microbudget_rl.conf.schema import CommandLine
from microbudget_rl.conf.schema.call import SignalConfig
from microbudget_rl.conf.schema.learner import LearnerConfig
from microbudget_rl.conf.signals import scratch_folder
from microbudget_rl.launch.checkup.archive import BRIEF, Archive, carry_out_run, describe_host
from microbudget_rl.launch.checkup.findings import Finding, examine, resource_findings
from microbudget_rl.launch.checkup.measurement import keep_measured, measure_actors
from microbudget_rl.launch.checkup.signal import WORDS, Sampled, commonest, others, rule_for, sample, shown, signal_of
from microbudget_rl.launch.plan.measurements import keep, recall
from microbudget_rl.launch.plan.plan import Plan, count_problems
from microbudget_rl.launch.plan.view import conclusion, source
from microbudget_rl.launch.session.preparation import command_line, commit, find_and_check, planned, say_purposes

T = TypeVar("T")

OWN = ("measure", "report")
CHOICES = (*(f"measure={what}" for what in ("true", "false", "signal", "all")), "report=true", "report=false")
"""The doctor's own arguments. measure: the speeds, nothing, whether the model can learn from the data, and both."""


@command("doctor.py", __doc__)
def main(arguments: list[str]) -> int:
    """Return the exit code: 0 a run can start; 1 it cannot; 2 bad input; 3 it is not worth it."""
    for_doctor = [argument for argument in arguments if argument.partition("=")[0] in OWN]
    words = dict(argument.split("=") for argument in for_doctor if argument in CHOICES)
    if len(words) < len(for_doctor):
        raise BadInput(f"{' '.join(for_doctor)}: use one of {', '.join(CHOICES)}, each name once")
    measure, settings = words.get("measure", "true"), [argument for argument in arguments if argument not in for_doctor]
    speeds, signal = measure in ("true", "all"), measure in ("signal", "all")
    asked = read(settings, CommandLine)
    console = PlainConsole(record=True)
    console.print(command_line("doctor.py", arguments))
    console.print(f"microbudget-rl {version('microbudget-rl')} {commit()}".strip())
    if words.get("report") != "true":
        return check(asked, speeds, signal, console)
    archive = Archive(Path(asked.run.folder, f"doctor-{asked.run.name}.tar.gz"), console)
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "INFO")
    with archive.phase("host"):
        describe_host(archive)
    with archive.phase("download"):  # which is not the run's time
        locate(asked.config.model)
    with archive.phase("run"):
        carry_out_run(archive, settings)
    code = 0
    with archive.phase("check"):  # measuring has no end if something hangs; a run has
        code = check(asked, speeds and not archive.failed, signal, console)
    if not archive.failed and not code:
        with archive.phase("kill", "warning"):  # last: on a GPU it may harm more than its run
            carry_out_run(archive, settings, min(BRIEF, asked.config.rollout.max_response_tokens))
    console.print(f"All is in {near(archive.path)}, in which nothing names you or this machine")
    return int(archive.failed) or code


def check(asked: CommandLine, speeds: bool, signal: bool, console: Console) -> int:
    """Check the machine and what else is asked for. Return the exit code."""
    worth = True
    findings, start = examine(asked.config)
    with ExitStack() as running:
        if start:
            try:
                plan, missing = running.enter_context(planned(*start, count_problems(start[0])))
                findings += [Finding(name, "warning", fault) for name, fault in missing.items()]
                findings += resource_findings(plan)
            except BadInput as error:
                findings.append(Finding("plan", "bad", str(error)))
        for finding in findings:
            console.print(finding.line)
        if any(finding.state == "bad" for finding in findings):
            return 1
        try:
            if speeds and plan.estimate:
                calibrate(plan, console)
            if signal:
                worth = judge(replace(plan, calibration=recall(plan.config, plan.machine)), asked.signal, console)
        except (ActorDied, Halted) as error:
            console.print(Finding("measuring", "bad", str(error)).line)
            return 1
    plan = replace(plan, calibration=recall(plan.config, plan.machine))
    console.print(conclusion(plan))
    console.print(source(plan))
    return 0 if worth else 3


def on_ray(plan: Plan, work: Callable[[Path], Coroutine[Any, Any, T]]) -> T:
    """Return the result of work that uses a Ray session and a temporary folder. The logs of failed work stay."""
    from microbudget_rl.actors.runtime.ray_session import BackgroundContext, clear_session, ray_session, session_logs

    with scratch_folder("doctor-") as folder:
        try:
            with BackgroundContext(ray_session(plan.config, plan.placement, folder, dashboard=False)):
                result = asyncio.run(work(folder))
        except Exception as error:
            print(f"More is in {session_logs(folder)}")
            raise root_cause(error) from None
        clear_session(folder)
        return result


def calibrate(plan: Plan, console: Console) -> None:
    """Measure the run's actors, and print and keep the result. Raises ActorDied if they cannot work."""
    model_path = locate(plan.config.model)
    console.print("Measuring for one or two minutes; engine and learner start first ...")
    measured = on_ray(plan, lambda folder: measure_actors(plan, model_path, folder, noted(console)))
    console.print(str(measured))
    kept = keep_measured(measured.calibration, plan)
    console.print("Kept for the next plan" if kept else "Not kept: a whole run has measured this machine")


def judge(plan: Plan, asked: SignalConfig, console: Console) -> bool:
    """Sample training problems, and print and keep what they say. Return whether a run is worth it."""
    config, model_path, problems, _ = find_and_check(plan.config)
    console.print(f"Sampling training problems for at most {duration(60 * asked.minutes)}; the engine starts first ...")

    def go_on(sampled: Sampled) -> bool:
        signal = signal_of(sampled, plan)
        known = ", ".join(f"{WORDS[name]} {shown(name, signal.figures[name])}" for name in ("pass@1", "useful"))
        console.print(f"{signal.problems} problems after {duration(sampled.seconds)}: {known}")
        return bool(others(signal.figures))

    sampled = on_ray(plan, lambda _: sample(plan, model_path, problems.train, asked, noted(console), go_on))
    signal = signal_of(sampled, plan)
    rule = rule_for(signal.figures)
    work = signal.workload
    console.print(f"{signal.problems} training problems × {signal.n} samples in {duration(sampled.seconds)}")
    for name, mean in signal.figures.items():
        console.print(f"  {WORDS[name]:<{max(map(len, WORDS.values()))}} {shown(name, mean)}")
    console.print(f"prompts of {work.prompt:.0f} tokens, responses of {work.response:.0f}; the commonest failures:")
    console.print(*commonest(sampled.samples), sep="\n")
    keep(signal, config, plan.machine)
    console.print(Text(rule.sentence(signal), "bold green" if rule.worth else "bold yellow"))
    say_purposes(plan, problems)
    if also := " or ".join(sorted(others(signal.figures))):
        console.print(f"Not certain: the intervals also allow {also}; raise signal.minutes or signal.problems.")
    if rule.worth:
        console.print(rate_advice(config.learner))
    if config.warm_start.source:
        console.print(
            f"This was before the run's warm start (warm_start.source={config.warm_start.source}), which may help"
        )
    return rule.worth


def rate_advice(learner: LearnerConfig) -> str:
    """Say which learning rates to try: samples of the base model do not tell."""
    rate, twice = learner.learning_rate, 2 * learner.learning_rate
    if learner.max_kl:
        return (
            f"The run lowers learner.learning_rate={rate:g} where it is too high. If it learns slowly, try {twice:g}."
        )
    return (
        f"If it does not learn, try learner.learning_rate={rate / 2:g} or {twice:g}; learner.max_kl lowers a high one."
    )


def noted(console: Console) -> Record:
    """Return what prints the events of actors."""
    return lambda *said: console.print(": ".join(said))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
