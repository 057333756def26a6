"""TRL on the same work. `python -m launch.benches.peers SETTINGS` runs in `.venv-bench` and prints JSON.

`.venv-bench` holds the peer alone; everything else, torch and transformers too, comes from the project's environment.
"""

import json
import subprocess
import sys
import sysconfig
import venv
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from launch.benches.processes import measured

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".venv-bench"
TRL = "trl==1.16.0"


@dataclass(frozen=True)
class Work:
    """What both sides do.

    problems: prompts as text
    samples: answers of a problem
    tokens: exact length of an answer
    threads: of the processor
    warm_up: updates before the clock starts
    """

    model: str
    dtype: str
    problems: tuple[str, ...]
    samples: int
    tokens: int
    rank: int
    alpha: int
    modules: tuple[str, ...]
    learning_rate: float
    threads: int
    warm_up: int
    updates: int


def reward(text: str) -> float:
    """Return the share of vowels, which differs between the answers of nearly any group."""
    return sum(letter in "aeiou" for letter in text.lower()) / max(len(text), 1)


def trl(work: Work, batch: int) -> dict[str, float]:
    """Return the seconds of an update of TRL's GRPOTrainer, `batch` samples a forward pass, and of its generation."""
    settings = json.dumps({"work": asdict(work), "batch": batch})
    found: dict[str, float] = measured("launch.benches.peers", settings, python=_install(), quiet=True)
    return found


def _install() -> Path:
    """Return the interpreter of an environment with the peer in it."""
    python = FOLDER / "bin" / "python"
    if not (FOLDER / "finished").exists():
        print(f"Installing {TRL} into {FOLDER} ...")
        venv.create(FOLDER, clear=True, with_pip=True)
        (site,) = FOLDER.glob("lib/python*/site-packages")
        (site / "project.pth").write_text(f"{ROOT}\n{sysconfig.get_path('purelib')}\n")
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", TRL], check=True)
        (FOLDER / "finished").touch()
    return python


def _train(work: Work, batch: int) -> dict[str, float]:
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import GRPOTrainer

    torch.set_num_threads(work.threads)
    ends, generation, lengths = list[float](), list[float](), list[int]()

    class Watch(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(perf_counter())

    class Trainer(GRPOTrainer):
        def _generate(self, *arguments: Any, **options: Any) -> Any:
            started = perf_counter()
            result = super()._generate(*arguments, **options)
            generation.append(perf_counter() - started)
            return result

    def rewards(completions: list[str], completion_ids: list[list[int]], **_: Any) -> list[float]:
        lengths.extend(map(len, completion_ids))
        return [reward(text) for text in completions]

    with TemporaryDirectory() as folder:
        Trainer(
            model=AutoModelForCausalLM.from_pretrained(work.model, dtype=getattr(torch, work.dtype)),
            processing_class=AutoTokenizer.from_pretrained(work.model),
            reward_funcs=rewards,
            args=_settings(work, batch, folder),
            train_dataset=Dataset.from_list([{"prompt": prompt} for prompt in work.problems]),
            peft_config=LoraConfig(r=work.rank, lora_alpha=work.alpha, target_modules=list(work.modules)),
            callbacks=[Watch()],
        ).train()
    if set(lengths) != {work.tokens}:
        raise RuntimeError(f"answers of {min(lengths)} to {max(lengths)} tokens instead of {work.tokens}")
    seconds = (ends[-1] - ends[work.warm_up - 1]) / work.updates
    return {"update_s": seconds, "generate_s": sum(generation[work.warm_up :]) / work.updates}


def _settings(work: Work, batch: int, folder: str) -> Any:
    from trl import GRPOConfig

    return GRPOConfig(
        output_dir=folder,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=len(work.problems) * work.samples // batch,
        num_generations=work.samples,
        max_completion_length=work.tokens,
        max_steps=work.warm_up + work.updates,
        learning_rate=work.learning_rate,
        lr_scheduler_type="constant",
        temperature=1.0,
        beta=0.0,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    print(json.dumps(_train(Work(**given["work"]), given["batch"])))
