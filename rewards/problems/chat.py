"""Checks the model's chat template, which is a foreign program: it may fail, or never end."""

from contextlib import closing
from typing import Any

from actors.models.files import stop_token_ids
from actors.models.prompts import prompt_length, render_prompt
from conf.errors import BadInput
from conf.schema import Config, DataConfig
from rewards.killable_worker import Crashed, Failed, Hung, Limits, Worker

DEADLINE_S = 2
"""Seconds of computing for one prompt, which normally takes milliseconds."""

MEMORY = 2**30
"""Memory for one prompt and for transformers, bytes."""

LONGEST = 10**7
"""Longest prompt around a problem, characters: longer than any model's context."""

PROBES = ("What is 3 + 4?", "What is 5 + 6?")

_ended = set[str]()
"""Templates, with their settings, that have ended: a worker has to import transformers, which takes a second or two."""


def check_chat(config: Config, tokenizer: Any) -> None:
    """Raise BadInput for a tokenizer without `model.stop_tokens`, or without a sound chat template."""
    path, data = config.model.path, config.data
    if not tokenizer.chat_template:
        raise BadInput(f"model.path: '{path}' has no chat template: choose an instruction-tuned model")
    stop_token_ids(config.model, tokenizer)
    template = repr((tokenizer.chat_template, data.chat_settings))
    if template not in _ended and not ends(data, tokenizer):
        raise BadInput(
            f"model.path: the chat template of '{path}' does not end within {DEADLINE_S} s and {MEMORY // 2**20} MiB: "
            "choose another model, or correct data.chat_settings"
        )
    _ended.add(template)
    first, second = (render_prompt((), probe, data, tokenizer) for probe in PROBES)
    if first == second:
        raise BadInput(f"model.path: the chat template of '{path}' omits the problem: choose another model")


def ends(data: DataConfig, tokenizer: Any) -> bool:
    """Whether the template ends, even with an error, in a worker that is killed if it does not."""
    with closing(Worker(Limits(DEADLINE_S, MEMORY))) as worker:
        try:
            return bool(worker.run(prompt_length, (), PROBES[0], data, tokenizer) <= LONGEST)
        except Failed:
            return True
        except (Hung, Crashed):
            return False
