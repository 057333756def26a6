"""TRL on the same work. `python -m launch.benches.peers SETTINGS` runs in `.venv-bench` and prints JSON.

`.venv-bench` holds the peer alone; everything else, torch and transformers too, comes from the project's environment.
"""

import json
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from launch.benches.processes import measured

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".venv-bench"
TRL = "trl==1.16.0"
WARM_UP = 1
"""Updates before the clock starts."""

Work = dict[str, Any]
"""model, dtype, threads; problems: prompts as text; lora: of peft's LoraConfig; settings: of TRL's GRPOConfig."""


def reward(text: str) -> float:
    """Return the share of vowels, which differs between the answers of nearly any group."""
    return sum(letter in "aeiou" for letter in text.lower()) / max(len(text), 1)


def trl(work: Work) -> dict[str, float]:
    """Return the seconds of an update of TRL's GRPOTrainer and of its generation."""
    found: dict[str, float] = measured("launch.benches.peers", json.dumps(work), python=install(), quiet=True)
    return found


def install() -> Path:
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


def _train(work: Work) -> dict[str, float]:
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    torch.set_num_threads(work["threads"])
    ends, generation, lengths = list[float](), list[float](), set[int]()

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
        lengths.update(map(len, completion_ids))
        return [reward(text) for text in completions]

    with TemporaryDirectory() as folder:
        Trainer(
            model=AutoModelForCausalLM.from_pretrained(work["model"], dtype=getattr(torch, work["dtype"])),
            processing_class=AutoTokenizer.from_pretrained(work["model"]),
            reward_funcs=rewards,
            args=GRPOConfig(output_dir=folder, **work["settings"]),
            train_dataset=Dataset.from_list([{"prompt": prompt} for prompt in work["problems"]]),
            peft_config=LoraConfig(**work["lora"]),
            callbacks=[Watch()],
        ).train()
    if lengths != {work["settings"]["max_completion_length"]}:
        raise RuntimeError(f"answers of {min(lengths)} to {max(lengths)} tokens instead of the limit")
    seconds = (ends[-1] - ends[WARM_UP - 1]) / len(ends[WARM_UP:])
    return {"update_s": seconds, "generate_s": sum(generation[WARM_UP:]) / len(ends[WARM_UP:])}


if __name__ == "__main__":
    print(json.dumps(_train(json.loads(sys.argv[1]))))
