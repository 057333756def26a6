"""Every setting of a run, by section: its meaning, its values and the source of its default.

`python launch/run.py help` shows the same. An *update* is one batch's change of the adapter (one optimizer step, unless
`algorithm.steps_per_batch` asks for more), a *version* is the adapter after a number of updates, a *group* is the
samples of one problem. There is no other batch size than `problems_per_update` × `samples_per_problem`.
"""

from dataclasses import fields
from functools import cache
from typing import TypeVar

from pydantic.dataclasses import dataclass

from conf.schema.call import Call
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
from conf.schema.signal import SignalConfig
from conf.schema.warm_start import WarmStartConfig
from conf.settings import DECLARED, section, setting, settings


@dataclass(config=DECLARED, frozen=True)
class Config:
    """The settings of a run: one without a section, and the sections."""

    device: str = setting("auto", "our choice: the same command everywhere", resumable=True)
    """auto (the GPUs if there are any), cpu, or, for a plan, a GPU such as A40 or its memory such as 12GB."""
    run: RunConfig = section(RunConfig)
    budget: BudgetConfig = section(BudgetConfig, resumable=True, setup=True)
    model: ModelConfig = section(ModelConfig)
    data: DataConfig = section(DataConfig)
    lora: LoraConfig = section(LoraConfig)
    warm_start: WarmStartConfig = section(WarmStartConfig, follows="warm_start.source")
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

    @property
    def final_policies(self) -> int:
        """Number of policies that a run evaluates at its end: 2 if its result may not be the last."""
        return 2 if self.validation.every else 1

    @property
    def selecting(self) -> int:
        """Number of held-out problems that are to choose the result, where there are enough."""
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


def among(key: str, names: tuple[str, ...]) -> bool:
    """Whether a key is one of the names, or within a section or mapping of that name."""
    return any(key == name or key.startswith(f"{name}.") for name in names)
