"""Compares an engine's log-probabilities under an adapter with those of transformers and PEFT."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors import safe_open
from torch import Tensor
from transformers import AutoModelForImageTextToText
from transformers.utils.logging import disable_progress_bar

from microbudget_rl.actors.adapter_check.at_start import CLEARLY
from microbudget_rl.actors.adapter_check.at_work import BAND
from microbudget_rl.actors.adapter_check.prompts import SAME, Responses, logprobs_of
from microbudget_rl.actors.models.adapters import WEIGHTS_FILE
from microbudget_rl.actors.models.text_part import STORED, whole_model
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.learner.model.adapter import modules_by_kind, scaled

FACTORS = (0.25, 0.5, 2.0, 4.0)
"""Wrong scales that are tried, as multiples of the right one, besides alpha / √r for alpha / r and the reverse."""

ALIEN = 3.0
"""Mean |Δ log p| between base models, nats, beyond which they are two models and not two revisions of one."""

ALIKE = 0.1
"""Fraction of the squared change that lies along the adapter's, below which it is another's. It is 0.01 for a random
one, 0.3 at three times the scale, and 0.6 without two kinds of modules."""

DOUBT = 0.15
"""Standard error of a fraction beyond which nothing is said about it."""


@dataclass(frozen=True)
class Row:
    """An answer. right: None if it cannot be told."""

    question: str
    right: bool | None
    answer: str = ""


def reference(model_path: str, adapter: Path) -> Any:
    """Return the model in float32 under an adapter, by PEFT: the whole wrapper if the adapter has its names."""
    with safe_open(adapter / WEIGHTS_FILE, framework="pt") as weights:
        whole = any(STORED in name for name in weights.keys())  # noqa: SIM118  # no mapping
    disable_progress_bar()
    load: Any = AutoModelForImageTextToText.from_pretrained if whole else whole_model
    model: Any = PeftModel.from_pretrained(load(model_path, dtype=torch.float32), str(adapter)).eval()
    return model.to("cuda" if torch.cuda.is_available() else "cpu")


def compare(model: Any, base: Responses, adapted: Responses) -> list[Row]:
    """Return all that an engine's log-probabilities tell. The model is in bfloat16 afterwards.

    base, adapted: responses without the adapter and with it.
    Raises BadInput if the engine has another model.
    """

    @torch.no_grad()
    def score(texts: Responses, change: AbstractContextManager[Any]) -> Tensor:
        found = []
        with change:
            for text in texts:
                ids, start = [*text.problem.prompt_ids, *text.samples[0].token_ids], len(text.problem.prompt_ids)
                logits = model(input_ids=torch.tensor([ids], device=model.device)).logits[0, start - 1 : -1].float()
                found.append(logits.log_softmax(-1).cpu().gather(1, torch.tensor(ids[start:])[:, None])[:, 0])
        return torch.cat(found).double()

    engine, bare = (torch.tensor(logprobs_of(each)).double() for each in (adapted, base))
    truth, own = score(adapted, nullcontext()), score(base, model.disable_adapter())
    unadapted = score(adapted, model.disable_adapter())
    if ALIEN < distance(bare, own) < torch.inf:
        raise BadInput(f"the base model is {distance(bare, own):.1f} nats off: name the model that is served")
    lora, kinds = model.peft_config["default"], modules_by_kind(model)
    kinds = {kind: names for kind, names in kinds.items() if not any(other < names for other in kinds.values())}
    effects = {kind: truth - score(adapted, scaled(model, 0.0, names)) for kind, names in kinds.items()}
    factors = (*FACTORS, lora.r ** (-0.5 if lora.use_rslora else 0.5))
    rescaled = {f"near {factor:.3g} × alpha": score(adapted, scaled(model, factor)) for factor in factors}
    limit = max(BAND * distance(score(adapted, nullcontext(model.to(torch.bfloat16))), truth), SAME)

    def near(question: str, left: Tensor, right: Tensor) -> Row:
        mean, largest = distance(left, right), (left - right).abs().max()
        return Row(question, mean <= limit, f"mean {mean:.2g}, largest {largest:.2g}, allowed {limit:.2g}")

    first, last = near("base untouched", bare, own), near("as PEFT computes it", engine, truth)
    off, learned, change = distance(engine, truth), truth - unadapted, engine - unadapted
    if off == torch.inf:
        return [first, last]
    # By least squares: the fraction of the adapter's effect that arrives, and of each kind of module's.
    (strength,), (doubt,) = fractions(learned[:, None], change)
    moved = distance(engine, unadapted) > max(limit, 2 * distance(bare, own))
    applied = moved or (strength > max(2 * doubt, 0.05) if doubt < DOUBT else None)
    alike = (learned @ change) ** 2 > ALIKE * (learned @ learned) * (change @ change)
    this = bool(off <= limit or alike) if applied else None
    scale = min(rescaled, key=lambda name: distance(engine, rescaled[name]))
    wrong = bool(this) and off > SAME and distance(engine, rescaled[scale]) < CLEARLY * off
    rows = [
        first,
        Row("applied", applied, f"{strength:.0%} ± {doubt:.0%} of its effect arrives"),
        Row("the right one", this),
        Row("scaled rightly", not wrong if this else None, scale if wrong else ""),
    ]
    for kind, lack, doubt in zip(effects, *fractions(torch.stack([*effects.values()], 1), truth - engine), strict=True):
        told = doubt < DOUBT and this and not wrong
        rows.append(Row(kind, lack < 0.5 if told else None, f"{1 - lack:.0%} ± {doubt:.0%} arrives" if told else ""))
    return [*rows, last]


def rightly(rows: Sequence[Row]) -> bool | None:
    """Return whether the adapter is served rightly; None if it cannot be told whether it is applied at all."""
    rights = {row.question: row.right for row in rows}
    return False if False in rights.values() else rights["applied"]


def fractions(effects: Tensor, change: Tensor) -> tuple[list[float], list[float]]:
    """Return the multiples of effects, [t, k], whose sum is nearest to a change, [t], and their standard errors.

    The error of the multiple of no effect is not finite.
    """
    inverse = torch.linalg.pinv(effects)
    found = inverse @ change
    error = (change - effects @ found).square().mean().sqrt()
    spread = inverse.square().sum(1).sqrt()
    return found.tolist(), (error * spread.where(spread > 0, torch.inf)).tolist()


def distance(left: Tensor, right: Tensor) -> float:
    """Return the mean |Δ log p|; infinite where that is not a number."""
    return (left - right).abs().mean().nan_to_num(torch.inf, torch.inf).item()
