"""Every setting of a run, by section: its meaning, its values and the source of its default.

`python launch/run.py help` shows the same. An *update* is one batch's change of the adapter (one optimizer step, unless
`algorithm.steps_per_batch` asks for more), a *version* is the adapter after a number of updates, a *group* is the
samples of one problem. There is no other batch size than `problems_per_update` × `samples_per_problem`.
"""

from functools import cache
from typing import Any

from pydantic import StrictInt
from pydantic.dataclasses import dataclass

from conf.schema.data import DataConfig
from conf.schema.data import ExampleConfig as ExampleConfig
from conf.schema.evaluation import EvalConfig, ValidationConfig
from conf.schema.learner import AlgorithmConfig, GuardConfig, LearnerConfig
from conf.schema.model import LoraConfig, ModelConfig
from conf.schema.model import ShapeConfig as ShapeConfig
from conf.schema.reward import CustomRewardConfig as CustomRewardConfig
from conf.schema.reward import RewardConfig
from conf.schema.rollout import AdapterCheckConfig, RolloutConfig
from conf.schema.run import BudgetConfig, CheckpointConfig, DashboardConfig, RunConfig, SweepConfig
from conf.settings import DECLARED, Rule, section, setting, settings

GPU_COUNTS = Rule(lambda counts: all(1 <= count <= 1024 for count in counts), "use numbers of GPUs from 1 to 1024")

OF_A_CALL: dict[str, Any] = {"resumable": True, "momentary": True}

ONE_RUN = "launch/run.py shows the settings of one run"
START_FROM = "launch/evaluate.py evaluates it; runs continue from lora.start_from"


@dataclass(config=DECLARED, frozen=True)
class Config:
    """Settings without a section, and the sections."""

    plan: bool = setting(False, "our choice", **OF_A_CALL)
    """Print placement, memory and time (evaluate.py: the samples to take), then exit."""
    show: bool = setting(False, "our choice", not_for_sweeps=ONE_RUN, **OF_A_CALL)
    """For run.py: print every setting with its value, its source and its meaning, then exit."""
    device: str = setting("auto", "our choice: the same command everywhere", resumable=True)
    """auto (the GPUs if there are any), cpu, or, for a plan, a GPU such as A40 or its memory such as 12GB."""
    simulate: list[StrictInt] = setting([], "our choice", rule=GPU_COUNTS, **OF_A_CALL)
    """With plan=true, numbers of GPUs to plan the run for, as [1,8,64,512]."""
    benchmarks: list[str] = setting(["heldout"], "our choice: no network but the recipe's", **OF_A_CALL)
    """For evaluate.py: sets of problems, each a name of conf/benchmarks.yaml, a source like data.source, or heldout
    for the recipe's own. Prompts follow data.template and the other settings of `data`."""
    n: int = setting(16, "the paper: pass@1, @8 and @16", ge=1, le=65536, **OF_A_CALL)
    """For evaluate.py: samples per problem. Everything else about the samples is set in `eval`."""
    limit: int | None = setting(None, "our choice", ge=1, **OF_A_CALL)
    """For evaluate.py: most problems per benchmark, in an order that only depends on their text; all when null."""
    adapter: str = setting("", "our choice", local_path=True, not_for_sweeps=START_FROM, **OF_A_CALL)
    """For evaluate.py: folder of a plain PEFT adapter to compare with the base model. Its rank, alpha and modules
    replace those of `lora`. The base model alone when empty. For an adapter in a run's folder, that run's
    settings, name and folder replace the recipe."""
    run: RunConfig = section(RunConfig)
    budget: BudgetConfig = section(BudgetConfig, resumable=True, setup=True)
    model: ModelConfig = section(ModelConfig)
    data: DataConfig = section(DataConfig)
    lora: LoraConfig = section(LoraConfig)
    rollout: RolloutConfig = section(RolloutConfig)
    learner: LearnerConfig = section(LearnerConfig)
    algorithm: AlgorithmConfig = section(AlgorithmConfig)
    reward: RewardConfig = section(RewardConfig)
    eval: EvalConfig = section(EvalConfig)
    validation: ValidationConfig = section(ValidationConfig)
    adapter_check: AdapterCheckConfig = section(AdapterCheckConfig)
    guard: GuardConfig = section(GuardConfig, resumable=True, setup=True)
    checkpoint: CheckpointConfig = section(CheckpointConfig, resumable=True)
    dashboard: DashboardConfig = section(DashboardConfig, resumable=True, private=True)


@dataclass(config=DECLARED, frozen=True)
class ConfigWithSweep(Config):
    """The settings of launch/sweep.py."""

    sweep: SweepConfig = section(SweepConfig)


@cache
def marked(property_: str) -> tuple[str, ...]:
    """Return the settings that have a property of `conf.settings.Setting`, such as resumable, by dotted key."""
    return tuple(item.path for item in settings(Config) if getattr(item, property_))


def among(key: str, names: tuple[str, ...]) -> bool:
    """Whether a key is one of the names, or within a section or mapping of that name."""
    return any(key == name or key.startswith(f"{name}.") for name in names)
