"""Every setting of a run, by section: what it means, which values it may have, where its default comes from.

`python launch/run.py help` shows the same. One vocabulary: an *update* is what one batch does to the adapter (one
optimizer step, unless `algorithm.steps_per_batch` asks for more), a *version* is the adapter after so many updates, a
*group* is the samples of one problem. There is no other batch size than `problems_per_update` × `samples_per_problem`.
"""

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
from conf.schema.rollout import CanaryConfig, RolloutConfig
from conf.schema.run import BudgetConfig, CheckpointConfig, DashboardConfig, RunConfig, SweepConfig
from conf.settings import DECLARED, Rule, section, setting, settings

CARDS = Rule(lambda counts: all(1 <= count <= 1024 for count in counts), "list numbers of cards from 1 to 1024")

OF_A_CALL: dict[str, Any] = {"resumable": True, "momentary": True}


@dataclass(config=DECLARED)
class Config:
    """Settings without a section, and the sections."""

    plan: bool = setting(False, "our choice", **OF_A_CALL)
    """Print placement, memory and time (evaluate.py: what would be drawn), then leave."""
    show: bool = setting(False, "our choice", **OF_A_CALL)
    """Of run.py: print every setting with its value, where that comes from and what it means, then leave."""
    device: str = setting("auto", "our choice: the same command everywhere", resumable=True)
    """auto (what the machine has), cpu, or for a plan the name of a card such as A40."""
    simulate: list[StrictInt] = setting([], "our choice", rule=CARDS, **OF_A_CALL)
    """With plan=true, numbers of GPUs to plan the run for, as [1,8,64,512]."""
    benchmarks: list[str] = setting(["heldout"], "our choice: no network but the recipe's", **OF_A_CALL)
    """Of evaluate.py: sets of problems, each by a name of conf/benchmarks.yaml, as a source like data.source, or
    heldout, the recipe's own; they are posed as data.template and the settings beside it say."""
    n: int = setting(16, "the paper: pass@1, @8 and @16", ge=1, le=65536, **OF_A_CALL)
    """Of evaluate.py: samples of each problem; the other settings of its samples are those of `eval`."""
    limit: int | None = setting(None, "our choice", ge=1, **OF_A_CALL)
    """Of evaluate.py: of each benchmark the first so many problems, in an order that depends on nothing but their text;
    all when null."""
    adapter: str = setting("", "our choice", **OF_A_CALL)
    """Of evaluate.py: folder of a plain PEFT adapter to compare with the base model, whose rank, alpha and modules then
    are those of `lora`; the base model alone when empty. Within the folder of a run it brings that run's settings, name
    and folder, in the recipe's place."""
    run: RunConfig = section(RunConfig)
    budget: BudgetConfig = section(BudgetConfig, resumable=True)
    model: ModelConfig = section(ModelConfig)
    data: DataConfig = section(DataConfig)
    lora: LoraConfig = section(LoraConfig)
    rollout: RolloutConfig = section(RolloutConfig)
    learner: LearnerConfig = section(LearnerConfig)
    algorithm: AlgorithmConfig = section(AlgorithmConfig)
    reward: RewardConfig = section(RewardConfig)
    eval: EvalConfig = section(EvalConfig)
    validation: ValidationConfig = section(ValidationConfig)
    canary: CanaryConfig = section(CanaryConfig)
    guard: GuardConfig = section(GuardConfig, resumable=True)
    checkpoint: CheckpointConfig = section(CheckpointConfig, resumable=True)
    dashboard: DashboardConfig = section(DashboardConfig, resumable=True, private=True)


@dataclass(config=DECLARED)
class ConfigWithSweep(Config):
    """The settings of launch/sweep.py."""

    sweep: SweepConfig = section(SweepConfig)


MAY_CHANGE = tuple(item.path for item in settings(Config) if item.resumable)
"""Settings that a run may be resumed with another value of."""

PRIVATE = tuple(item.path for item in settings(Config) if item.private)
"""Settings that are the business of a run's owner: they are shown nowhere but in the run's folder."""

MOMENTARY = tuple(item.path for item in settings(Config) if item.momentary)
"""Settings of one call of a command: their change says nothing about a run."""
