"""TRL on the quickstart's task until the race is over. `python -m launch.benches.race_peer FOLDER SEED` runs in
`.venv-bench`, leaves an adapter of each minute in the folder, and prints the updates that it had made by then.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from conf.load import load
from conf.models import load_tokenizer, locate
from launch.benches.race import MINUTES
from launch.hardware.machine import detect
from launch.session.resume import resolve_dtype
from rewards.problems.loading import load as load_problems
from rewards.verify import verify

BATCH = 64
"""Samples a forward pass: the larger of the numbers that `end_to_end` tries."""


def train(folder: Path, seed: int) -> dict[int, float]:
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from torch.optim.lr_scheduler import LambdaLR
    from transformers import AutoModelForCausalLM, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    config = load(["conf=quickstart", f"run.seed={seed}"])
    resolve_dtype(config, detect("cpu"))
    model, began = locate(config.model), psutil.Process().create_time()
    tokenizer = load_tokenizer(model, config.model.path)
    problems = load_problems(config, tokenizer).train
    updates = dict.fromkeys(MINUTES, 0.0)

    def progress() -> float:
        return min((time.time() - began) / (60 * MINUTES[-1]), 1.0)

    class Watch(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            for minute in MINUTES:
                kwargs["model"].save_pretrained(folder / f"after-{minute}")

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if (now := progress()) == 1.0:
                control.should_training_stop = True
                return
            for minute in MINUTES:
                if now <= minute / MINUTES[-1]:
                    updates[minute] = float(state.global_step)
                    kwargs["model"].save_pretrained(folder / f"after-{minute}")

    class Trainer(GRPOTrainer):
        def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
            final = config.learner.final_rate
            self.lr_scheduler = LambdaLR(optimizer or self.optimizer, lambda _: 1 - (1 - final) * progress())
            return self.lr_scheduler

    def rewards(completions: list[str], gold: list[str], **_: Any) -> list[float]:
        return [verify(right, text).score for right, text in zip(gold, completions, strict=True)]

    rollout, learner, lora = config.rollout, config.learner, config.lora
    samples = learner.problems_per_update * rollout.samples_per_problem
    Trainer(
        model=AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, config.model.dtype)),
        processing_class=tokenizer,
        reward_funcs=rewards,
        args=GRPOConfig(
            output_dir=str(folder / "trainer"),
            seed=seed,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            per_device_train_batch_size=BATCH,
            gradient_accumulation_steps=samples // BATCH,
            num_generations=rollout.samples_per_problem,
            max_completion_length=rollout.max_response_tokens,
            max_steps=1_000_000,
            learning_rate=learner.learning_rate,
            adam_beta2=learner.beta2,
            max_grad_norm=learner.max_grad_norm,
            temperature=rollout.temperature,
            beta=0.0,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            dataloader_pin_memory=False,
        ),
        train_dataset=Dataset.from_list([{"prompt": each.prompt, "gold": each.gold} for each in problems]),
        peft_config=LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=list(lora.target_modules)),
        callbacks=[Watch()],
    ).train()
    return updates


if __name__ == "__main__":
    print(json.dumps(train(Path(sys.argv[1]), int(sys.argv[2]))))
