"""Run folders with a checkpoint whose adapter changes a tiny model."""

import json
from pathlib import Path
from typing import Any

from microbudget_rl.actors.storage.files import seal
from microbudget_rl.actors.storage.folders import mark
from microbudget_rl.conf.load import dump, load
from microbudget_rl.conf.schema.model import PROJECTIONS
from tests.json_lines import write_rows
from tests.run_folders import sample as sample_of

QUESTIONS = [f"What is {number} + 4? Put the final answer within \\boxed{{}}." for number in range(6)]

SHOWN = "data.few_shot=[{problem: 1 + 1, answer: 2}]"


def write_trained(
    folder: Path, model: Path, *, std: float = 0.05, rows: int = 6, settings: tuple[str, ...] = ()
) -> Path:
    """A finished run of a model. std: of the adapter's B. The held-out problems are 0 + 4, 1 + 4, …"""
    folder.parent.mkdir(exist_ok=True)
    problems = ({"problem": f"What is {number} + 4?", "answer": str(number + 4)} for number in range(40))
    data = write_rows(folder.parent / "sums.jsonl", problems)
    arguments = [
        "conf=quickstart",
        f"run.name={folder.name}",
        f"run.folder={folder.parent}",
        f"model.path={model}",
        "model.dtype=bfloat16",
        f"data.source=file:{data}",
        "data.problem_pattern=",
        *([] if any(each.startswith("data.few_shot=") for each in settings) else ["data.few_shot=[]"]),
        "data.system=null",
        "data.size=null",
        "eval.problems=6",
        "lora.rank=4",
        "lora.alpha=8",
        *settings,
    ]
    checkpoint = folder / "checkpoints" / "update-000004"
    checkpoint.mkdir(parents=True)
    mark(folder, "run")
    (folder / "config.yaml").write_text(dump(load(arguments)))
    save_adapter(checkpoint / "adapter", model, std)
    seal(checkpoint)
    (folder / "checkpoints" / "latest").symlink_to(checkpoint.name)
    (folder / "samples").mkdir()
    for name, right in (("base", 1), ("final", 5)):
        samples = (sample(number, name, number < right) for number in range(rows))
        write_rows(folder / "samples" / f"eval-{name}.jsonl", samples)
    (folder / "summary.json").write_text(json.dumps({"status": "budget_exhausted"}))
    return folder


def save_adapter(folder: Path, model: Path, std: float, seed: int = 1, **lora: Any) -> Path:
    """Save an adapter as PEFT, TRL and Unsloth do. lora: its settings in PEFT, other than rank 4 on all modules."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    given = {"r": 4, "lora_alpha": 8, "target_modules": list(PROJECTIONS), **lora}
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(model), LoraConfig(task_type="CAUSAL_LM", **given))
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=std)
    adapted.save_pretrained(folder)
    return folder


def sample(number: int, name: str, right: bool) -> dict[str, object]:
    answer = number + 4 if right else 99
    return sample_of(number, right) | {
        "prompt": f"<|im_start|>user\n{QUESTIONS[number % len(QUESTIONS)]}<|im_end|>\n<|im_start|>assistant\n",
        "gold": str(number + 4),
        "version": None if name == "base" else 4,
        "response": f"{number} + 4 = \\boxed{{{answer}}}",
        "extracted": str(answer),
    }
