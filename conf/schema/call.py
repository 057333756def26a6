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
    """Print the plan (placement, memory, time, price), then exit. For evaluate.py: the number of samples."""
    show: bool = setting(False, "our choice", not_for_sweeps=ONE_RUN)
    """For run.py: print every setting with its value, where that comes from, and its meaning, then exit."""
    simulate: list[StrictInt] = setting([], "our choice", rule=GPU_COUNTS)
    """With plan=true: plan the run also for other machines, such as [1,8,64,512]."""
    benchmarks: list[str] = setting(
        ["heldout"], "our choice: no other data is needed", not_for_runs="a run has eval.benchmarks"
    )
    """For evaluate.py: benchmarks, each a name in conf/benchmarks.yaml, a source as in data.source, or heldout, the
    recipe's held-out problems. The settings of `data`, such as data.template, make the prompts."""
    n: int = setting(16, "the paper's pass@1, @8 and @16", ge=1, le=65536, not_for_runs="a run has eval.n")
    """For evaluate.py: samples per problem. `eval` sets how they are sampled."""
    limit: int | None = setting(None, "our choice", ge=1, not_for_runs="a run has eval.problems")
    """For evaluate.py: largest number of problems per benchmark, in an order that depends only on their text. Null:
    all."""
    base: str = setting(
        "", "our choice", local_path=True, not_for_sweeps=OWN_BASE, not_for_runs="a run evaluates its base model itself"
    )
    """For evaluate.py: folder of an earlier evaluation of the same base model, whose samples are reused."""
    adapter: str = setting(
        "", "our choice", local_path=True, not_for_sweeps=START_FROM, not_for_runs="a run starts from lora.start_from"
    )
    """For evaluate.py: the adapter to compare with the base model: the folder of a run, whose result counts, or of a
    plain PEFT adapter. Its rank, alpha and modules replace those of `lora`. For an adapter of a run, that run's
    settings, name and folder replace the recipe. Empty: the base model alone."""


@dataclass(config=DECLARED, frozen=True)
class SignalConfig:
    """What `launch/doctor.py measure=signal` samples: training problems, with the recipe's prompt, temperature, limits
    and reward.
    """

    minutes: float = setting(10.0, "our choice: less than a hundredth of a day", gt=0, le=60 * YEAR_H)
    """Longest time of sampling, without the engine's start. Sampling ends sooner if the answer is certain."""
    problems: int = setting(
        420, "our choice: enough to be certain that fewer than 2 % of the groups have variance", ge=6
    )
    """Largest number of training problems to sample."""
    samples: int = setting(16, "the paper's pass@16", ge=2, le=1024)
    """Samples per problem, rounded up to a multiple of rollout.samples_per_problem."""
