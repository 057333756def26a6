"""The model card of a trained model for a repository on the Hugging Face Hub."""

from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData

from actors.formats import money
from actors.models.files import BUNDLED, name_on_hub
from actors.models.prompts import reminder
from actors.models.sizes import padded_rank
from actors.storage.checkpoints import version_of
from launch.after.trained import Trained
from launch.reporting.history import Run
from launch.reporting.page import cell
from launch.reporting.wording import time
from rewards.problems.loading import OVERLAP_KEPT

LIBRARY = {"adapter": "peft", "merged": "transformers"}
RELATION = {"adapter": "adapter", "merged": "finetune"}
"""The hub's names for the library that loads a format, and for the format's relation to the base model."""


def model_card(trained: Trained, run: Run, report: str, form: str, repository: str, licence: str) -> ModelCard:
    """Return a card with the hub's metadata, the run's report, instructions, and limits.

    report: the report in Markdown. licence: the hub's abbreviation of the base model's licence; empty if unknown.
    """
    version, base = version_of(trained.checkpoint), trained.base_name
    on_hub, revision, price = "/" in base, name_on_hub(trained.config.model)[1], trained.config.budget.price_per_hour
    metadata = ModelCardData(
        base_model=base if on_hub else None,
        base_model_relation=RELATION[form] if on_hub else None,
        library_name=LIBRARY[form],
        license=licence or None,
        pipeline_tag="text-generation",
        tags=["reinforcement-learning", "rlvr", "grpo", "lora", "reasoning", "microbudget-rl"],
    )
    return ModelCard.from_template(
        metadata,
        template_path=str(Path(__file__).parent / "templates" / "card.md"),
        cell=cell,
        repository=repository,
        base=base if on_hub else "FOLDER_OF_THE_BASE_MODEL",
        revision=revision,
        form=form,
        rank=padded_rank(trained.config.lora.rank),
        report=report,
        version=version,
        described=run.summary.result.update if run.summary.result else version,
        facts={
            "base model": "@".join(filter(None, (base, revision))),
            "licence of the base model": licence or "see the page of the base model",
            "updates": run.summary.updates or len(run.rows),
            "time": time(run.summary.spent_s),
            "cost": "not recorded" if (cost := run.summary.cost) is None else f"{money(cost)} at {price:g} per hour",
        },
        most_tokens=run.config.get("rollout.max_response_tokens"),
        repacked=trained.config.model.path == BUNDLED,
        reminder="".join(reminder(trained.config)),
        overlaps=run.filtered.get(OVERLAP_KEPT, 0),
    )
