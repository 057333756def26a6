"""Applies the model's chat template, which is a foreign program: it may fail, or never end."""

import os
import resource
import signal
from collections.abc import Callable
from typing import Any

import psutil
from jinja2 import TemplateError

from actors.models.files import stop_token_ids
from conf.documents import reason
from conf.errors import BadInput
from conf.schema import Config, DataConfig

Message = dict[str, str]

DEADLINE_S = 2
"""Seconds of computing for one prompt, which normally takes milliseconds."""

MEMORY = 2**29
"""Memory for one prompt, bytes."""

LONGEST = 10**7
"""Longest prompt around a problem, characters: longer than any model's context."""

FAILURES = (TemplateError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError, RecursionError)
"""Errors that a template raises: jinja's own, and Python's for what it computes."""

PROBES = ("What is 3 + 4?", "What is 5 + 6?")


def check_chat(config: Config, tokenizer: Any) -> None:
    """Raise BadInput for a tokenizer without `model.stop_tokens`, or without a sound chat template."""
    path, data = config.model.path, config.data
    if not tokenizer.chat_template:
        raise BadInput(f"model.path: '{path}' has no chat template: choose an instruction-tuned model")
    stop_token_ids(config.model, tokenizer)
    if not survives(lambda: len(render([], PROBES[0], data, tokenizer)) <= LONGEST):
        raise BadInput(
            f"model.path: the chat template of '{path}' does not end within {DEADLINE_S} s and {MEMORY // 2**20} MiB: "
            "choose another model, or correct data.chat_settings"
        )
    first, second = (render([], probe, data, tokenizer) for probe in PROBES)
    if first == second:
        raise BadInput(f"model.path: the chat template of '{path}' omits the problem: choose another model")


def render(turns: list[Message], problem: str, data: DataConfig, tokenizer: Any) -> str:
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


def survives(work: Callable[[], bool]) -> bool:
    """Run `work` in a fork, which is killed if it does not end or takes too much memory.

    Return whether it returned True or raised as it would here.
    """
    child = os.fork()
    if child == 0:
        try:
            signal.signal(signal.SIGPROF, signal.SIG_DFL)  # the default action needs no interpreter
            signal.setitimer(signal.ITIMER_PROF, DEADLINE_S)
            most = psutil.Process().memory_info().data + MEMORY
            resource.setrlimit(resource.RLIMIT_DATA, (most, most))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            os._exit(0 if work() else 1)
        except MemoryError:
            os._exit(1)
        except BaseException:  # the fork must end here
            os._exit(0)
    return os.waitpid(child, 0)[1] == 0
