"""A run's report as the model card of a repository on the Hugging Face Hub."""

import re
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from conf.models import EMBEDDED
from conf.schema.reward import formula
from conf.sizes import padded_rank
from launch.exports.adapter import from_hub
from launch.reports.history import Run
from launch.reports.page import cell, clean, run_report
from launch.reports.verdict import Change, basis, change, verdict
from launch.reports.wording import many, percent, shorten, span, time
from launch.trained.policy import Trained

HUB_NAMES = {EMBEDDED: "HuggingFaceTB/SmolLM2-135M-Instruct"}
"""Of models that come with the project."""

LICENCES = {EMBEDDED: "apache-2.0"}

LIBRARIES = {"adapter": "peft", "merged": "transformers"}
"""What the hub is told to load a format with."""

RELATIONS = {"adapter": "adapter", "merged": "finetune"}
"""What a format is of its base model, in the hub's words."""

TAGS = ["reinforcement-learning", "rlvr", "grpo", "lora", "reasoning", "microbudget-rl"]

BASES = {EMBEDDED: "Trained on a copy of the base model whose weights had been packed into 4 bits (Q4_1)"}
"""How models that come with the project differ from those they are copies of."""

SMALL_PRINT = [
    "Trained and measured on problems like those of its data, and on nothing else.",
    "It was not tested for safety, and keeps the faults and biases of its base model.",
]


def model_card(trained: Trained, run: Run, form: str, repository: str, licence: str) -> str:
    """Return README.md: the hub's metadata, what was trained and how, before and after with intervals, and limits.

    licence: of the base model, as the hub abbreviates it; empty if it is not known.
    """
    found = change(run)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {"cell": cell, "block": block}
    base = base_name(trained)
    _, _, report = run_report(run).markdown.split("\n\n**", 2)  # after the verdict, which the card has above
    body = environment.get_template("card.md").render(
        title=repository.partition("/")[2],
        repository=repository,
        base=base if on_hub(base) else "FOLDER_OF_THE_BASE_MODEL",
        form=form,
        rank=padded_rank(trained.config.lora.rank),
        verdict=verdict(run, found),
        basis=basis(run, found),
        facts=facts(trained, run, found, licence),
        example=example(trained),
        limits=limits(trained, run, form, found),
        report=f"**{report}",
    )
    return f"---\n{metadata(trained, run, form, repository, licence, found)}\n---\n\n{body}"


def metadata(trained: Trained, run: Run, form: str, repository: str, licence: str, found: Change | None) -> str:
    """Return what the hub understands: base model, library, tags, data, licence and the result, as YAML."""
    base, source = base_name(trained), str(trained.config.data.source)
    dataset = source.removeprefix("hub:").partition(":")[0].partition("@")[0] if source.startswith("hub:") else ""
    of_hub = on_hub(base)
    card = ModelCardData(
        base_model=base if of_hub else None,
        base_model_relation=RELATIONS[form] if of_hub else None,
        datasets=[dataset] if dataset.count("/") == 1 else None,
        library_name=LIBRARIES[form],
        license=licence or None,
        pipeline_tag="text-generation",
        tags=TAGS,
        model_name=repository.partition("/")[2],
        eval_results=[result(run, found, source)] if found else None,
    )
    return card.to_yaml().strip()


def result(run: Run, found: Change, source: str) -> EvalResult:
    """Return held-out pass@1 of the trained policy in the hub's form."""
    name = str(run.config.get("data.eval_source") or source)
    return EvalResult(
        task_type="text-generation",
        dataset_type=name.removeprefix("hub:"),
        dataset_name=f"{many(found.problems, 'held-out problem')} of {name}".replace("\N{NO-BREAK SPACE}", " "),
        metric_type="pass@1",
        metric_value=round(found.after.value, 4),
        metric_name=f"pass@1 ({found.before.value:.4f} before training)",
    )


def facts(trained: Trained, run: Run, found: Change | None, licence: str) -> list[tuple[str, str]]:
    """Return name and value of what a reader asks first."""
    config, summary = trained.config, run.summary
    passed = (
        [
            (f"held-out pass@1 {when}", f"{percent(of.value)} (95 % interval {span(of.interval)})")
            for when, of in (("before", found.before), ("after", found.after))
        ]
        if found
        else []
    )
    cost = summary.get("cost")
    known = [
        ("base model", base_name(trained)),
        ("licence of the base model", licence or "see the page of the base model"),
        ("data", config.data.source),
        ("method", f"{config.algorithm.preset}, LoRA of rank {config.lora.rank}, alpha {config.lora.alpha:g}"),
        ("reward", formula(run.config)),
        ("learning rate", f"{config.learner.learning_rate:g}, {config.learner.schedule}"),
        ("updates", str(summary.get("updates", len(run.rows)))),
        *passed,
        ("hardware", str(summary.get("hardware") or run.origin.get("machine") or "not recorded")),
        ("time", time(run.spent_s)),
        ("cost", "not recorded" if cost is None else f"{cost:.2f} at {config.budget.price_per_hour:g} an hour"),
        ("seed", str(config.run.seed)),
    ]
    return [(name, str(value)) for name, value in known]


def example(trained: Trained) -> dict[str, str] | None:
    """Return the first sample of the final evaluation; None without any."""
    row = next(iter(trained.run.samples("eval-final")), None)
    return row and {**row, "text": shorten(row["prompt"] + row["response"])}


def limits(trained: Trained, run: Run, form: str, found: Change | None) -> list[str]:
    """Return what the result does not say."""
    copied = BASES.get(trained.config.model.path)
    said = [
        *([copied + (", and not measured on the original." if form == "adapter" else ".")] if copied else []),
        "One run with one seed: another seed may end elsewhere.",
        f"Answers were cut off at {run.config.get('rollout.max_response_tokens')} tokens in training.",
        *SMALL_PRINT,
    ]
    if found is None:
        said.insert(0, "Not evaluated both before and after training: what it has learned is not known.")
    elif found.finding != "rose":
        said.insert(0, "An improvement on held-out problems was not shown.")
    if run.overlaps:
        said.append(f"{run.overlaps} training problems overlap the held-out ones.")
    return said


def base_name(trained: Trained) -> str:
    """Return the base model's name on the hub, or that of its folder where it is not from there."""
    path = trained.config.model.path
    return HUB_NAMES.get(path) or (path if from_hub(trained) else Path(path).name)


def on_hub(base: str) -> bool:
    """Whether the name of a base model is that of a repository on the hub."""
    return "/" in base


def block(text: str) -> str:
    """Return text as a block that Markdown shows as it is, whatever it holds."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(longest + 1, 3)
    return f"{fence}text\n{clean(text)}\n{fence}"


def local_licence(trained: Trained) -> str:
    """Return the licence that the base model's own card states; empty if it is not beside the model."""
    if (known := LICENCES.get(trained.config.model.path)) is not None:
        return known
    card = Path(trained.model_path) / "README.md"
    if not card.is_file():
        return ""
    stated = _front_matter(card.read_text("utf-8", errors="replace")).get("license")
    return stated if isinstance(stated, str) else ""


def _front_matter(text: str) -> dict[str, Any]:
    if not text.startswith("---\n"):
        return {}
    try:
        found = yaml.safe_load(text[4:].partition("\n---")[0])
    except yaml.YAMLError:
        return {}
    return found if isinstance(found, dict) else {}
