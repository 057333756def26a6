"""What a run has trained, as the model card of a repository on the Hugging Face Hub."""

import re
from pathlib import Path

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData, metadata_load

from actors.models.files import EMBEDDED
from actors.models.sizes import padded_rank
from conf.schema.reward import formula
from launch.after.trained import Trained
from launch.reporting.health import flags
from launch.reporting.history import Run
from launch.reporting.page import cell, clean
from launch.reporting.run_conclusion import Change, basis, change, conclude
from launch.reporting.wording import many, percent, shorten, span, time

HUB_NAMES = {EMBEDDED: "HuggingFaceTB/SmolLM2-135M-Instruct"}
"""Of models that come with the project."""

LICENCES = {EMBEDDED: "apache-2.0"}

OF_FORMAT = {"adapter": ("peft", "adapter"), "merged": ("transformers", "finetune")}
"""By format the library that loads it, and what it is of its base model, in the hub's words."""

TAGS = ["reinforcement-learning", "rlvr", "grpo", "lora", "reasoning", "microbudget-rl"]

BASES = {EMBEDDED: "Trained on a copy of the base model whose weights had been packed into 4 bits (Q4_1)"}
"""How models that come with the project differ from those they are copies of."""

SMALL_PRINT = [
    "Trained and measured on problems like those of its data, and on nothing else.",
    "It was not tested for safety, and keeps the faults and biases of its base model.",
]


def model_card(trained: Trained, run: Run, form: str, repository: str, licence: str) -> ModelCard:
    """Return the hub's metadata, what was trained and how, before and after with intervals, and limits.

    licence: of the base model, as the hub abbreviates it; empty if it is not known.
    """
    found, base = change(run), base_name(trained)
    example = next(iter(trained.run.samples("eval-final")), None)
    return ModelCard.from_template(
        metadata(trained, run, form, repository, licence, found),
        template_path=str(Path(__file__).parent / "templates" / "card.md"),
        cell=cell,
        block=block,
        repository=repository,
        base=base if on_hub(base) else "FOLDER_OF_THE_BASE_MODEL",
        form=form,
        rank=padded_rank(trained.config.lora.rank),
        verdict=conclude(run, found),
        basis=basis(run, found),
        facts=facts(trained, run, found, licence),
        example=example
        and {"status": example.status, "gold": example.gold, "text": shorten(example.prompt + example.response)},
        limits=limits(trained, run, form, found),
    )


def metadata(
    trained: Trained, run: Run, form: str, repository: str, licence: str, found: Change | None
) -> ModelCardData:
    """Return what the hub understands: base model, library, tags, data, licence and held-out pass@1."""
    base, source = base_name(trained), str(run.config["data.source"])
    dataset = source.removeprefix("hub:").partition(":")[0].partition("@")[0] if source.startswith("hub:") else ""
    library, relation = OF_FORMAT[form]
    measured = str(run.config.get("data.eval_source") or source)
    result = found and EvalResult(
        task_type="text-generation",
        dataset_type=measured.removeprefix("hub:"),
        dataset_name=f"{many(found.problems, 'held-out problem')} of {measured}".replace("\N{NO-BREAK SPACE}", " "),
        metric_type="pass@1",
        metric_value=round(found.after.value, 4),
        metric_name=f"pass@1 ({found.before.value:.4f} before training)",
    )
    return ModelCardData(
        base_model=base if on_hub(base) else None,
        base_model_relation=relation if on_hub(base) else None,
        datasets=[dataset] if dataset.count("/") == 1 else None,
        library_name=library,
        license=licence or None,
        pipeline_tag="text-generation",
        tags=TAGS,
        model_name=repository.partition("/")[2],
        eval_results=[result] if result else None,
    )


def facts(trained: Trained, run: Run, found: Change | None, licence: str) -> dict[str, str]:
    """Return by name what a reader asks first."""
    config, summary, passed = trained.config, run.summary, {}
    if found:
        for when, level in (("before", found.before), ("after", found.after)):
            passed[f"held-out pass@1 {when}"] = f"{percent(level.value)} (95 % interval {span(level.interval)})"
    known = {
        "base model": base_name(trained),
        "licence of the base model": licence or "see the page of the base model",
        "data": run.config["data.source"],
        "method": f"{config.algorithm.preset}, LoRA of rank {config.lora.rank}, alpha {config.lora.alpha:g}",
        "reward": formula(run.config),
        "learning rate": f"{config.learner.learning_rate:g}, {config.learner.schedule}",
        "updates": summary.updates or len(run.rows),
        **passed,
        "hardware": summary.hardware or run.origin.machine or "not recorded",
        "time": time(summary.spent_s),
        "cost": "not recorded"
        if summary.cost is None
        else f"{summary.cost:.2f} at {config.budget.price_per_hour:g} an hour",
        "seed": config.run.seed,
    }
    return {name: str(value) for name, value in known.items()}


def limits(trained: Trained, run: Run, form: str, found: Change | None) -> list[str]:
    """Return what the result does not say, and what was wrong with the run."""
    said = [f"{flag.title}: {flag.detail}" for flag in flags(run) if flag.level in ("bad", "warning")]
    if found is None:
        said.append("Not evaluated both before and after training: what it has learned is not known.")
    elif found.finding != "rose":
        said.append("An improvement on held-out problems was not shown.")
    if copied := BASES.get(trained.config.model.path):
        said.append(copied + (", and not measured on the original." if form == "adapter" else "."))
    said += [
        "One run with one seed: another seed may end elsewhere.",
        f"Answers were cut off at {run.config.get('rollout.max_response_tokens')} tokens in training.",
        *SMALL_PRINT,
    ]
    if run.overlaps:
        said.append(f"{run.overlaps} training problems overlap the held-out ones.")
    return said


def base_name(trained: Trained) -> str:
    """Return the base model's name on the hub, or that of its folder where it is not from there."""
    path = trained.config.model.path
    return HUB_NAMES.get(path) or (path if trained.base_on_hub else Path(path).name)


def on_hub(base: str) -> bool:
    """Whether the name of a base model is that of a repository on the hub."""
    return "/" in base


def block(text: str) -> str:
    """Return text as a block that Markdown shows as it is, whatever it holds."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}text\n{clean(text)}\n{fence}"


def local_licence(trained: Trained) -> str:
    """Return the licence that the base model's own card states; empty if it is not beside the model."""
    card = Path(trained.model_path) / "README.md"
    try:
        stated = (metadata_load(card) or {}).get("license") if card.is_file() else None
    except (ValueError, yaml.YAMLError):  # a card that is none
        stated = None
    return LICENCES.get(trained.config.model.path) or (stated if isinstance(stated, str) else "")
