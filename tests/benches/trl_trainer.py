"""Trains with TRL's GRPOTrainer on the quickstart's task. `python -m tests.benches.trl_trainer ARGUMENTS` runs in
`.venv-bench`, takes the arguments of `train` as JSON and prints JSON.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from microbudget_rl.actors.coordinator.rules.rate import learning_rate
from microbudget_rl.actors.models.files import load_tokenizer, locate
from microbudget_rl.conf.load import load
from microbudget_rl.conf.schema import Config
from microbudget_rl.conf.schema.learner import LearnerConfig
from microbudget_rl.launch.hardware.machine import detect
from microbudget_rl.launch.session.admission import resolve_model
from microbudget_rl.rewards.problems.loading import load_problems
from microbudget_rl.rewards.verify import verify
from tests.benches.trl_updates import reward


def train(
    settings: Sequence[str], batch: int, minutes: Sequence[int] = (), folder: str = "", updates: int = 1_000_000
) -> dict[str, Any]:
    """Train until the last of the minutes, or for a number of updates with the fraction of vowels as the reward.

    batch: samples per forward pass. folder: gets the adapter of each minute. Return the number of updates by each
    minute, and the time at the end of each update, seconds.
    """
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    config = resolve_model(load(["conf=quickstart", *settings]), detect("cpu"))
    learner, lora = config.learner, config.lora
    model, began = locate(config.model), psutil.Process().create_time()
    tokenizer = load_tokenizer(model, config.model.path)
    rows = [{"prompt": each.prompt, "gold": each.gold} for each in load_problems(config, tokenizer).train]
    made, ends = dict.fromkeys(minutes, 0.0), list[float]()

    def progress() -> float:
        return min((time.time() - began) / (60 * minutes[-1]), 1.0) if minutes else 0.0

    def rewards(completions: list[str], gold: list[str], **_: Any) -> list[float]:
        pairs = zip(gold, completions, strict=True)
        return [verify(*pair).score if minutes else reward("", pair[1], "") for pair in pairs]

    class Watch(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.keep(0, kwargs["model"])

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            ends.append(time.perf_counter())
            if progress() == 1.0:
                control.should_training_stop = True
            else:
                self.keep(state.global_step, kwargs["model"])

        def keep(self, step: int, policy: Any) -> None:
            for minute in minutes:
                if progress() <= minute / minutes[-1]:
                    made[minute] = float(step)
                    policy.save_pretrained(Path(folder, f"after-{minute}"))

    with TemporaryDirectory() as output:
        scheduled(GRPOTrainer, learner, progress)(
            model=AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, config.model.dtype)),
            processing_class=tokenizer,
            reward_funcs=rewards,
            args=GRPOConfig(output_dir=output, max_steps=updates, **arguments(config, batch)),
            train_dataset=Dataset.from_list(rows),
            peft_config=LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=list(lora.target_modules)),
            callbacks=[Watch()],
        ).train()
    return {"updates": made, "ends": ends}


def scheduled(trainer: Any, learner: LearnerConfig, progress: Callable[[], float]) -> Any:
    """Return a trainer class with this project's learning rates."""
    from torch.optim.lr_scheduler import LambdaLR

    class Trainer(trainer):
        def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
            def rate(step: int) -> float:
                return learning_rate(learner, step, progress()) / learner.learning_rate

            self.lr_scheduler = LambdaLR(optimizer or self.optimizer, rate)
            return self.lr_scheduler

    return Trainer


def arguments(config: Config, batch: int) -> dict[str, Any]:
    """Return a run's settings under TRL's names."""
    rollout, learner = config.rollout, config.learner
    return {
        "seed": config.run.seed,
        "use_cpu": True,
        "bf16": config.model.dtype == "bfloat16",  # its default is True, which float32 excludes
        "gradient_checkpointing": False,  # its default, True, computes each forward pass twice
        "per_device_train_batch_size": batch,
        "gradient_accumulation_steps": learner.problems_per_update * rollout.samples_per_problem // batch,
        "num_generations": rollout.samples_per_problem,
        "max_completion_length": rollout.max_response_tokens,
        "learning_rate": learner.learning_rate,
        "adam_beta2": learner.beta2,
        "max_grad_norm": learner.max_grad_norm,
        "temperature": rollout.temperature,
        "beta": 0.0,
        "report_to": [],
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }


if __name__ == "__main__":
    print(json.dumps(train(**json.loads(sys.argv[1]))))
