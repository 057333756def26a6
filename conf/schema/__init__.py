"""Every setting of a run, by section: its meaning, its values and the reason of its default.

`python launch/run.py help` shows the same. An *update* is one batch's change of the adapter (one optimizer step, unless
`algorithm.steps_per_batch` asks for more), a *version* is the adapter after a number of updates, a *group* is the
samples of one problem. There is no other batch size than `problems_per_update` × `samples_per_problem`.
"""

from dataclasses import fields
from functools import cache
from typing import TypeVar

from pydantic.dataclasses import dataclass

from microbudget_rl.conf.schema.call import Call, SignalConfig
from microbudget_rl.conf.schema.data import DataConfig
from microbudget_rl.conf.schema.data import ExampleConfig as ExampleConfig
from microbudget_rl.conf.schema.evaluation import EvalConfig, ValidationConfig
from microbudget_rl.conf.schema.learner import AlgorithmConfig, GuardConfig, LearnerConfig
from microbudget_rl.conf.schema.model import LoraConfig, ModelConfig
from microbudget_rl.conf.schema.model import ShapeConfig as ShapeConfig
from microbudget_rl.conf.schema.reward import CustomRewardConfig as CustomRewardConfig
from microbudget_rl.conf.schema.reward import RewardConfig
from microbudget_rl.conf.schema.rollout import AdapterCheckConfig, RolloutConfig
from microbudget_rl.conf.schema.run import BudgetConfig, CheckpointConfig, DashboardConfig, RunConfig, SweepConfig
from microbudget_rl.conf.schema.warm_start import WarmStartConfig
from microbudget_rl.conf.settings import DECLARED, section, setting, settings


@dataclass(config=DECLARED, frozen=True)
class Config:
    """The settings of a run: one without a section, and the sections."""

    device: str = setting("auto", "our choice: the same command works everywhere", affects="operation")
    """auto (the GPUs, if there are any) or cpu. For a plan also a GPU by name, such as A40, by memory, such as 12GB, or
    a list of GPUs."""
    run: RunConfig = section(RunConfig, affects="operation")
    budget: BudgetConfig = section(BudgetConfig, affects="learning", resumable=True)
    model: ModelConfig = section(ModelConfig, affects="learning")
    data: DataConfig = section(DataConfig, affects="held_out training")
    lora: LoraConfig = section(LoraConfig, affects="learning")
    warm_start: WarmStartConfig = section(WarmStartConfig, affects="learning", follows="warm_start.source")
    rollout: RolloutConfig = section(RolloutConfig, affects="rollout")
    learner: LearnerConfig = section(LearnerConfig, affects="learning")
    algorithm: AlgorithmConfig = section(AlgorithmConfig, affects="learning")
    reward: RewardConfig = section(RewardConfig, affects="reward")
    eval: EvalConfig = section(EvalConfig, affects="evaluation")
    validation: ValidationConfig = section(ValidationConfig, affects="result")
    adapter_check: AdapterCheckConfig = section(AdapterCheckConfig, affects="operation")
    guard: GuardConfig = section(GuardConfig, affects="learning", resumable=True)
    checkpoint: CheckpointConfig = section(CheckpointConfig, affects="operation")
    dashboard: DashboardConfig = section(DashboardConfig, affects="operation", private=True)

    @property
    def final_policies(self) -> int:
        """Number of policies that a run evaluates at its end: 2 if its result may not be the last."""
        return 2 if self.validation.every else 1

    @property
    def validation_problems(self) -> int:
        """Number of validation problems, if enough problems are held out."""
        return self.validation.problems if self.validation.every else 0

    @property
    def starts_apart(self) -> bool:
        """Whether reinforcement learning begins with another policy than the base model."""
        return bool(self.warm_start.source or self.lora.start_from)

    @property
    def keeps_start(self) -> bool:
        """Whether KL and drift are measured from an adapter, the one that reinforcement learning began with."""
        return self.algorithm.reference == "start" and self.starts_apart


@dataclass(config=DECLARED, frozen=True)
class CommandLine(Config, Call):
    """All that a command line may give: the settings of a run, and what the call asks for."""

    signal: SignalConfig = section(SignalConfig)

    @property
    def config(self) -> Config:
        """The settings of the run alone."""
        return Config(**{item.name: getattr(self, item.name) for item in fields(Config)})


@dataclass(config=DECLARED, frozen=True)
class SweepCommandLine(CommandLine):
    """The command line of launch/sweep.py."""

    sweep: SweepConfig = section(SweepConfig)


AnyConfig = TypeVar("AnyConfig", bound=Config)
"""The settings of a run, alone or with the rest of a command line."""


@cache
def marked(property_: str) -> tuple[str, ...]:
    """Return the settings that have a property of `conf.settings.Setting`, such as resumable, by dotted key."""
    return tuple(item.path for item in settings(Config) if getattr(item, property_))


@cache
def affecting(*words: str) -> tuple[str, ...]:
    """Return the settings that affect one of these, words of `conf.settings.AFFECTS`, by dotted key."""
    return tuple(item.path for item in settings(Config) if not {*words}.isdisjoint(item.affects.split()))


def among(key: str, names: tuple[str, ...]) -> bool:
    """Whether a key is one of the names, or within a section or mapping of that name."""
    return any(key == name or key.startswith(f"{name}.") for name in names)
