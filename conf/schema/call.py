"""What one call of a command asks for, such as the doctor. No run has it."""

from pydantic import StrictInt
from pydantic.dataclasses import dataclass

from microbudget_rl.conf.schema.run import YEAR_H
from microbudget_rl.conf.settings import DECLARED, Rule, setting

GPU_COUNTS = Rule(lambda counts: all(1 <= count <= 1024 for count in counts), "use numbers of GPUs from 1 to 1024")

ONE_RUN = "python launch/run.py shows the settings of one run"
OWN_BASE = "a sweep evaluates each base model once, by sweep.benchmarks"
START_FROM = "python launch/evaluate.py evaluates it; runs continue from lora.start_from"


@dataclass(config=DECLARED, frozen=True)
class Call:
    """What one call of a command asks for, on the same command line as the settings of a run."""

    plan: bool = setting(False, "our choice")
    """Print placement, memory and time (evaluate.py: the samples to take), then exit."""
    show: bool = setting(False, "our choice", not_for_sweeps=ONE_RUN)
    """For run.py: print every setting with its value, its source and its meaning, then exit."""
    simulate: list[StrictInt] = setting([], "our choice", rule=GPU_COUNTS)
    """With plan=true, numbers of GPUs to plan the run for, as [1,8,64,512]."""
    benchmarks: list[str] = setting(
        ["heldout"], "our choice: no network but the recipe's", not_for_runs="a run has eval.benchmarks"
    )
    """For evaluate.py: sets of problems, each a name of conf/benchmarks.yaml, a source like data.source, or heldout
    for the recipe's own. Prompts follow data.template and the other settings of `data`."""
    n: int = setting(16, "the paper: pass@1, @8 and @16", ge=1, le=65536, not_for_runs="a run has eval.n")
    """For evaluate.py: samples per problem. Everything else about the samples is set in `eval`."""
    limit: int | None = setting(None, "our choice", ge=1, not_for_runs="a run has eval.problems")
    """For evaluate.py: most problems per benchmark, in an order that only depends on their text; all when null."""
    base: str = setting(
        "", "our choice", local_path=True, not_for_sweeps=OWN_BASE, not_for_runs="a run evaluates its base model itself"
    )
    """For evaluate.py: folder of an evaluation of the same base model whose samples are taken over."""
    adapter: str = setting(
        "", "our choice", local_path=True, not_for_sweeps=START_FROM, not_for_runs="a run starts from lora.start_from"
    )
    """For evaluate.py: folder of a plain PEFT adapter to compare with the base model, or of a run, whose result is then
    taken. Its rank, alpha and modules replace those of `lora`. The base model alone when empty. For an adapter in a
    run's folder, that run's settings, name and folder replace the recipe."""


@dataclass(config=DECLARED, frozen=True)
class SignalConfig:
    """What `launch/doctor.py measure=signal` samples. It uses training problems, and samples them as the run would:
    temperature, limits, prompt and reward are the recipe's.
    """

    minutes: float = setting(10.0, "our choice: a hundredth of a day", gt=0, le=60 * YEAR_H)
    """Most minutes of sampling. It ends sooner once the verdict is certain. The engine's start is not counted."""
    problems: int = setting(150, "our choice: they show a share of 10 % within 9 points", ge=6)
    """Most training problems to sample."""
    samples: int = setting(16, "the paper: pass@16", ge=2, le=1024)
    """Samples per problem, in whole groups of rollout.samples_per_problem."""
