"""Compares an engine's log-probabilities under an adapter with those of transformers and PEFT."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForImageTextToText

from microbudget_rl.actors.adapter_check.at_start import CLEARLY
from microbudget_rl.actors.adapter_check.at_work import BAND
from microbudget_rl.actors.adapter_check.prompts import SAME, Responses, logprobs_of
from microbudget_rl.actors.models.adapters import WEIGHTS_FILE
from microbudget_rl.actors.models.text_part import STORED, whole_model
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.launch.trained.merged import logprobs
from microbudget_rl.learner.model.adapter import modules_by_kind, scaled

ALIEN = 3.0
"""Mean |Δ log p| between base models, nats, beyond which they are two models and not two revisions of one."""
ALIKE = 0.1
"""Part of the squared change along the adapter's, below which it is another's. Random: 0.01; at 3 times alpha: 0.3."""
DOUBT = 0.15
"""Standard error of a fraction beyond which nothing is said about it."""


class Row(NamedTuple):
    """An answer. right: None if it cannot be told."""

    question: str
    right: bool | None
    answer: str = ""


def reference(model_path: str, adapter: Path) -> Any:
    """Return the model in float32 under an adapter, by PEFT: the whole wrapper if the adapter has its names."""
    whole = any(STORED in name for name in load_file(adapter / WEIGHTS_FILE))
    load: Any = AutoModelForImageTextToText.from_pretrained if whole else whole_model
    model: Any = PeftModel.from_pretrained(load(model_path, dtype=torch.float32), str(adapter)).eval()
    return model.to("cuda" if torch.cuda.is_available() else "cpu")


@torch.no_grad()
def compare(model: Any, base: Responses, adapted: Responses) -> list[Row]:
    """Return all that an engine's responses without the adapter and with it tell, or raise BadInput if they are another
    model's. The model is in bfloat16 afterwards.
    """

    def score(texts: Responses, change: AbstractContextManager[Any]) -> Tensor:
        with change:
            return logprobs(model, [(text.problem.prompt_ids, text.samples[0].token_ids) for text in texts]).double()

    def near(question: str, left: Tensor, right: Tensor) -> Row:
        mean, largest = distance(left, right), (left - right).abs().max()
        return Row(question, mean <= limit, f"mean {mean:.2g}, largest {largest:.2g}, allowed {limit:.2g}")

    engine, bare = (torch.tensor(logprobs_of(each)).double() for each in (adapted, base))
    truth, scores = score(adapted, nullcontext()), score(base, model.disable_adapter())
    learned, change = (each - score(adapted, model.disable_adapter()) for each in (truth, engine))
    if ALIEN < distance(bare, scores) < torch.inf:
        raise BadInput(f"the base model is {distance(bare, scores):.1f} nats off: name the model that is served")
    if not learned.isfinite().all():
        raise BadInput("the adapter's effect is not finite in transformers: its weights are too large")
    lora, kinds = model.peft_config["default"], modules_by_kind(model)
    effects = torch.stack([truth - score(adapted, scaled(model, 0.0, names)) for names in kinds.values()], 1)
    factors = (0.25, 0.5, 2.0, 4.0, lora.r ** (-0.5 if lora.use_rslora else 0.5))  # the last: alpha / r and alpha / √r
    rescaled = {distance(engine, score(adapted, scaled(model, factor))): factor for factor in factors}
    limit = max(BAND * distance(score(adapted, nullcontext(model.to(torch.bfloat16))), truth), SAME)
    off, nearest = distance(engine, truth), min(rescaled)
    # By least squares: the fraction of the adapter's effect that arrives, and what each kind of module lacks.
    ((strength, doubt),) = fractions(learned[:, None], change)
    moved = max(limit, 2 * distance(bare, scores)) < change.abs().mean() < torch.inf
    applied = bool(moved or strength > max(2 * doubt, 0.05)) if moved or doubt < DOUBT else None
    alike = (learned @ change) ** 2 > ALIKE * (learned @ learned) * (change @ change)
    this = bool(off <= limit or alike) if applied else None
    wrong = bool(this) and off > SAME and nearest < CLEARLY * off
    rows = [
        near("base untouched", bare, scores),
        Row("applied", applied, f"{strength:.0%} ± {doubt:.0%} of its effect arrives"),
        Row("the right one", this),
        Row("scaled correctly", not wrong if this else None, f"near {rescaled[nearest]:.3g} × alpha" if wrong else ""),
    ]
    for kind, (lack, doubt) in zip(kinds, fractions(effects, truth - engine), strict=True):
        told = doubt < DOUBT and this and not wrong
        rows.append(Row(kind, lack < 0.5 if told else None, f"{1 - lack:.0%} ± {doubt:.0%} arrives" if told else ""))
    return [*rows, near("as PEFT computes it", engine, truth)]


def fractions(effects: Tensor, change: Tensor) -> list[list[float]]:
    """Return the multiples of effects, [t, k], whose sum is nearest to a change, [t], each with its standard error."""
    inverse = torch.linalg.pinv(effects)
    update = inverse @ change
    error, spread = (change - effects @ update).square().mean().sqrt(), inverse.norm(dim=1)
    return torch.stack((update, error * spread.where(spread > 0, torch.inf)), 1).tolist()


def distance(left: Tensor, right: Tensor) -> float:
    """Return the mean |Δ log p|; infinite where that is not a number."""
    return (left - right).abs().mean().nan_to_num(torch.inf, torch.inf).item()
