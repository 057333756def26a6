"""From a problem to the tokens of its prompt, by the model's chat template."""

import re
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

from jinja2 import TemplateError

from microbudget_rl.actors.formats import counted
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.parsing import reason
from microbudget_rl.conf.schema import Config, DataConfig

Message = dict[str, str]

BATCH = 1024
"""Prompts tokenized at once, by all cores."""

NEVER = "(?!)"
"""A pattern that matches nothing."""

FAILURES = (TemplateError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError, RecursionError)
"""Errors that a template raises: jinja's own, and Python's for what it computes."""


def messages_of(turns: Sequence[Message], problem: str, data: DataConfig) -> list[Message]:
    """Return the messages of a problem's prompt. turns: the conversation before it."""
    messages = list(turns)
    if data.system is not None:
        spoken = [message for message in messages if message["role"] != "system"]
        messages = [{"role": "system", "content": data.system}, *spoken]
    for example in data.few_shot:
        messages.append({"role": "user", "content": data.template.replace("{problem}", example.problem)})
        messages.append({"role": "assistant", "content": example.answer})
    return [*messages, {"role": "user", "content": data.template.replace("{problem}", problem)}]


def render_prompt(turns: Sequence[Message], problem: str, data: DataConfig, tokenizer: Any) -> str:
    """Return a problem's prompt. turns: the conversation before it. Raises BadInput for a template that fails."""
    messages = messages_of(turns, problem, data)
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


def tokenized(prompts: Sequence[str], tokenizer: Any) -> Iterator[Sequence[int]]:
    """Yield the tokens of prompts. Those of a text between special tokens depend on no other part of the prompt: what
    the prompts of a batch share, such as few-shot examples, is tokenized once.
    """
    special = [token for token in tokenizer.added_tokens_decoder.values() if token.special]
    strips = any(token.lstrip or token.single_word for token in special)
    names = "|".join(re.escape(str(token)) for token in special if tokenizer.is_fast and not strips)
    begin = re.compile(f"(?={names or NEVER})")
    for first in range(0, len(prompts), BATCH):
        batch = [begin.split(prompt) for prompt in prompts[first : first + BATCH]]
        parts = [*dict.fromkeys(chain(*batch))]
        tokens = dict(zip(parts, tokenizer(parts, add_special_tokens=False)["input_ids"], strict=True))
        yield from ([*chain(*map(tokens.__getitem__, prompt))] for prompt in batch)


def control_tokens(tokenizer: Any) -> list[str]:
    """Return the special tokens, such as those that mark turns: a problem must not contain them."""
    return [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]


def reminder(config: Config) -> list[str]:
    """Return a sentence on the few-shot examples of training, if there are any."""
    most = max(len(data.few_shot) for data in config.data.by_source.values())
    shown = f"Prompts in training began with {counted(most, 'few-shot example')} (data.few_shot)"
    return [f"{shown}: without them the model may seem untrained."] if most else []
