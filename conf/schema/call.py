"""What one call of a command asks for. No run has it."""

from pydantic import StrictInt
from pydantic.dataclasses import dataclass

from conf.settings import DECLARED, Rule, setting

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
