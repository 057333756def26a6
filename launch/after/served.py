"""Compares an engine's log-probabilities under an adapter with those of transformers and PEFT."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors import safe_open
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText
from transformers.utils.logging import disable_progress_bar

from microbudget_rl.actors.adapter_check.at_start import CLEARLY
from microbudget_rl.actors.adapter_check.at_work import BAND
from microbudget_rl.actors.adapter_check.prompts import SAME, Responses, logprobs_of
from microbudget_rl.actors.models.adapters import WEIGHTS_FILE
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
    """An answer. right: None if it cannot be told. mean, largest: |Δ log p| that it is about, nats per token."""

    question: str
    right: bool | None
    answer: str
    mean: float
    largest: float


def reference(model_path: str, adapter: Path) -> Any:
    """Return the model in float32 under an adapter, by PEFT. One with an encoder of images has other names inside."""
    with safe_open(adapter / WEIGHTS_FILE, framework="pt") as weights:
        wrapped = any(".language_model." in name for name in weights.keys())  # noqa: SIM118  # no mapping
    disable_progress_bar()
    made: Any = AutoModelForImageTextToText if wrapped else AutoModelForCausalLM
    base = made.from_pretrained(model_path, dtype=torch.float32)
    model: Any = PeftModel.from_pretrained(base, str(adapter)).eval()
    return model.to("cuda" if torch.cuda.is_available() else "cpu")


def compare(model: Any, base: Responses, adapted: Responses, others: Mapping[str, Responses]) -> list[Row]:
    """Return all that an engine's log-probabilities tell. The model is in bfloat16 afterwards.

    base, adapted: responses without the adapter and with it. others: under other adapters, with the tokens of adapted.
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

    def row(question: str, right: bool | None, answer: str, left: Tensor, other: Tensor) -> Row:
        return Row(question, right, answer, distance(left, other), (left - other).abs().max().item())

    engine, bare = (torch.tensor(logprobs_of(each)).double() for each in (adapted, base))
    truth, unadapted = score(adapted, nullcontext()), score(adapted, model.disable_adapter())
    if distance(bare, own := score(base, model.disable_adapter())) > ALIEN:
        raise BadInput(f"the base model is {distance(bare, own):.1f} nats off: name the model that is served")
    lora, kinds = model.peft_config["default"], modules_by_kind(model)
    kinds = {kind: own for kind, own in kinds.items() if not any(other < own for other in kinds.values())}
    effects = {kind: truth - score(adapted, scaled(model, 0.0, own)) for kind, own in kinds.items()}
    factors = (*FACTORS, lora.r ** (-0.5 if lora.use_rslora else 0.5))
    rescaled = {f"{factor:.3g} × alpha": score(adapted, scaled(model, factor)) for factor in factors}
    limit = max(BAND * distance(score(adapted, nullcontext(model.to(torch.bfloat16))), truth), SAME)
    off, learned, served = distance(engine, truth), truth - unadapted, engine - unadapted
    rows = [row("base untouched", distance(bare, own) <= limit, f"rounding allows {limit:.2g}", bare, own)]
    if off < torch.inf:
        # By least squares: the fraction of the adapter's effect that arrives, and of each kind of module's.
        (strength,), (doubt,) = fractions(learned[:, None], served)
        moved = distance(engine, unadapted) > limit
        applied = moved or (strength > max(2 * doubt, 0.05) if doubt < DOUBT else None)
        rows.append(row("applied", applied, f"{strength:.0%} of its effect arrives", engine, unadapted))
        scale = min(rescaled, key=lambda name: distance(engine, rescaled[name]))
        alike = (learned @ served) ** 2 > ALIKE * (learned @ learned) * (served @ served)
        this = bool(off <= limit or alike) if applied else None
        wrong = off > SAME and distance(engine, rescaled[scale]) < CLEARLY * off
        same = [name for name, each in others.items() if distance(torch.tensor(logprobs_of(each)), truth) <= limit]
        rows.append(row("the right one", this, f"the same as {', '.join(same)}" if same else "", engine, truth))
        rows.append(
            row("scaled rightly", not wrong if this else None, f"near {scale}" if this and wrong else "", engine, truth)
        )
        lacking, doubts = fractions(torch.stack([*effects.values()], 1), truth - engine)
        for (kind, effect), lack, doubt in zip(effects.items(), lacking, doubts, strict=True):
            there = lack < 0.5 if doubt < DOUBT and this and not wrong else None
            arrives = f"{1 - lack:.0%} ± {doubt:.0%} arrives" if there is not None else ""
            rows.append(row(kind, there, arrives, truth, truth - effect))
    return [*rows, row("as PEFT computes it", off <= limit, f"rounding allows {limit:.2g}", engine, truth)]


def fractions(effects: Tensor, change: Tensor) -> tuple[list[float], list[float]]:
    """Return the multiples of effects, [t, k], whose sum is nearest to a change, [t], and their standard errors."""
    inverse = torch.linalg.pinv(effects)
    found = inverse @ change
    error = (change - effects @ found).square().mean().sqrt()
    return found.tolist(), (error * inverse.square().sum(1).sqrt()).tolist()


def distance(left: Tensor, right: Tensor) -> float:
    """Return the mean |Δ log p|; infinite where that is not a number."""
    return (left - right).abs().mean().nan_to_num(torch.inf).item()
