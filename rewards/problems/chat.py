"""Applies the model's chat template, which is a foreign program: it may fail, or never end."""

from contextlib import closing
from typing import Any

from jinja2 import TemplateError

from actors.formats import counted
from actors.models.files import stop_token_ids
from conf.errors import BadInput
from conf.parsing import reason
from conf.schema import Config, DataConfig
from rewards.functions import RENDER
from rewards.killable_worker import Crashed, Failed, Hung, Limits, Worker

Message = dict[str, str]

DEADLINE_S = 2
"""Seconds of computing for one prompt, which normally takes milliseconds."""

MEMORY = 2**30
"""Memory for one prompt and for transformers, bytes."""

LONGEST = 10**7
"""Longest prompt around a problem, characters: longer than any model's context."""

FAILURES = (TemplateError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError, RecursionError)
"""Errors that a template raises: jinja's own, and Python's for what it computes."""

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
    first, second = (render_prompt([], probe, data, tokenizer) for probe in PROBES)
    if first == second:
        raise BadInput(f"model.path: the chat template of '{path}' omits the problem: choose another model")


def reminder(config: Config) -> list[str]:
    """Return a sentence on the few-shot examples of training, if there are any."""
    most = max(len(data.few_shot) for data in config.data.by_source.values())
    shown = f"Prompts in training began with {counted(most, 'few-shot example')} (data.few_shot)"
    return [f"{shown}: without them the model may seem untrained."] if most else []


def render_prompt(turns: list[Message], problem: str, data: DataConfig, tokenizer: Any) -> str:
    """Return a problem's prompt. turns: the conversation before it. Raises BadInput for a template that fails."""
    messages = list(turns)
    if data.system is not None:
        spoken = [message for message in messages if message["role"] != "system"]
        messages = [{"role": "system", "content": data.system}, *spoken]
    for example in data.few_shot:
        messages.append({"role": "user", "content": data.template.replace("{problem}", example.problem)})
        messages.append({"role": "assistant", "content": example.answer})
    messages.append({"role": "user", "content": data.template.replace("{problem}", problem)})
    try:
        prompt: str = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=False, **data.chat_settings
        )
    except FAILURES as error:
        roles = ", ".join(dict.fromkeys(message["role"] for message in messages))
        raise BadInput(
            f"model.path: the model's chat template refuses messages of {roles} ({reason(error)}): change data.system, "
            f"data.few_shot or data.chat_settings={data.chat_settings}, or choose another model"
        ) from None
    return prompt


def control_tokens(tokenizer: Any) -> list[str]:
    """Return the special tokens, such as those that mark turns: a problem must not contain them."""
    return [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]


def ends(data: DataConfig, tokenizer: Any) -> bool:
    """Whether the template ends, even with an error, in a worker that is killed if it does not."""
    with closing(Worker(Limits(DEADLINE_S, MEMORY))) as worker:
        try:
            return bool(worker.run(RENDER, PROBES[0], data, tokenizer) <= LONGEST)
        except Failed:
            return True
        except (Hung, Crashed):
            return False
