"""The causal language model in a folder: of a wrapper, which also takes images or sound, the part that takes text.

That part is built by its own class, under which its weights have other names than in the wrapper's files. An adapter on
disk has the files' names: vLLM, PEFT and an export look for these.
"""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

from microbudget_rl.actors.models.families import read_config, text_config
from microbudget_rl.conf.errors import BadInput

FOREIGN = (ValueError, TypeError, AttributeError, KeyError, IndexError, RuntimeError, ImportError, OSError)
"""Errors that library code raises for a model that it does not know or takes for another kind."""

OWN, STORED = "model.", "model.language_model."
"""Beginnings of the names of a part's weights: in its own class, and in a wrapper's files."""

PEFT = "base_model.model."
"""Beginning of PEFT's names, before a model's own."""

OUTSIDE = r"(?!model\.language_model\.).*"
"""Pattern of the names of all modules of a wrapper outside its part for text, some of which are named alike."""


def wrapped(folder: str | Path) -> bool:
    """Return whether the model in a folder is a wrapper."""
    stated = read_config(folder)
    return text_config(stated) is not stated


def empty_model(folder: str) -> Any:
    """Return the model without weights. Raises BadInput if transformers cannot build it."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder).get_text_config())
    except FOREIGN as error:
        fault = f"model {folder}: transformers {version('transformers')} cannot build it ({error})"
        raise BadInput(f"{fault}; choose a causal language model that it knows") from error


def whole_model(folder: str, **options: Any) -> Any:
    """Return the model with its weights. Raises BadInput if the files lack one, which transformers draws at random."""
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import logging

    options |= {"config": AutoConfig.from_pretrained(folder).get_text_config(), "output_loading_info": True}
    level = logging.get_verbosity()
    if wrapped(folder):
        options["key_mapping"] = {f"^{STORED}".replace(".", r"\."): OWN}
        logging.set_verbosity_error()  # it would list the weights of all other parts
    try:
        model, report = cast(Any, AutoModelForCausalLM).from_pretrained(folder, **options)
    finally:
        logging.set_verbosity(level)
    if missing := sorted(report["missing_keys"]):
        raise BadInput(f"model {folder}: its files lack {', '.join(missing[:3])}; restore the model's own files")
    return model


def adapter_shapes(folder: str, targets: Sequence[str], rank: int) -> dict[str, list[int]]:
    """Return the shapes of an adapter on these modules of the model, under PEFT's names."""
    inside, shapes = wrapped(folder), {}
    for name, module in empty_model(folder).named_modules():
        if name.rpartition(".")[2] in targets:
            begin = PEFT + (name.replace(OWN, STORED, 1) if inside else name)
            shapes[f"{begin}.lora_A.weight"] = [rank, module.in_features]
            shapes[f"{begin}.lora_B.weight"] = [module.out_features, rank]
    return shapes
