"""Chat templates that fail, never end or fill the memory, and settings that they do not take."""

import json
from collections.abc import Iterator
from pathlib import Path

from tests.hostile.case import Case, copied
from tests.hostile.models import settings_without
from tests.hostile.stock import Stock

TEMPLATES = {
    "raises": "{{ raise_exception('only for tools') }}",
    "raises at a system message": "{% for m in messages %}{{ raise_exception('roles') }}{% endfor %}",
    "does not parse": "{% for m in messages %}{{ m['content'] }",
    "never closes": "{% if x %}",
    "unknown tag": "{% exec 'x' %}",
    "unknown filter": "{{ messages | no_such_filter }}",
    "undefined name": "{{ no_such_name.content }}",
    "undefined call": "{{ no_such_name() }}",
    "wrong types": "{{ messages + 1 }}",
    "division by zero": "{{ 1 / 0 }}",
    "missing key": "{{ messages[99].content.x }}",
    "unsafe attribute": "{{ messages.__class__.__mro__[1].__subclasses__() }}",
    "changes its input": "{{ messages.append(1) }}",
    "recursion": "{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}",
    "loops for ever": "{% for a in range(99999) %}{% for b in range(99999) %}{{ b }}{% endfor %}{% endfor %}",
    "loops in silence": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "power of powers": "{{ 9 ** 9 ** 9 ** 9 }}",
    "fills the memory": "{{ 'x' * 99999999999 }}",
    "doubles a text": "{% set n = namespace(a='xxxxxxxx') %}{% for _ in range(60) %}"
    "{% set n.a = n.a + n.a %}{% endfor %}",
    "a giant range": "{{ range(10 ** 12) | list }}",
    "a large text": "{{ 'x' * 50000000 }}",
    "says nothing": "",
    "says nothing of the problem": "hello",
    "includes a file": "{% include '/etc/passwd' %}",
    "imports a file": "{% import '/etc/passwd' as x %}",
    "encodes badly": "{{ '\\ud800' }}",
}

NOT_TEXT = {
    "a template that is a number": 3,
    "a template that is a list": [1],
    "a template that is a mapping": {"a": 1},
}

SETTINGS = (
    "{chat_template: 3}",
    "{chat_template: '{{ 1 / 0 }}'}",
    "{conversation: []}",
    "{tokenize: true}",
    "{tools: 3}",
    "{tools: [3]}",
    "{tools: {a: 1}}",
    "{documents: 3}",
    "{continue_final_message: true}",
    "{return_dict: true}",
    "{return_tensors: pt}",
    "{return_assistant_tokens_mask: true}",
    "{padding: 7}",
    "{tokenizer_kwargs: 3}",
    "{messages: []}",
    "{messages: 3}",
    "{self: 3}",
    "{1: 2}",
    "{true: 2}",
    "{null: 2}",
    "{enable_thinking: {a: [{b: 1}]}}",
    "{raise_exception: 3}",
    "[1]",
    "text",
    "3",
)
EITHER = (
    "{documents",
    "{padding",
    "{tokenizer_kwargs",
    "{enable",
    "{raise",
    "{tools",
    "{return_t",
    "{messages",
    "{return_a",
)


def cases() -> Iterator[Case]:
    for name, template in TEMPLATES.items():
        yield Case("chat", f"template: {name}", "problems", _template(template))
    for name, template in NOT_TEXT.items():
        yield Case("chat", name, "problems", _template(template))
    for text in SETTINGS:
        refused = None if text.startswith(EITHER) else True
        yield Case("chat", f"settings: {text}", "problems", _settings(text), refused)


def _template(template: object):
    def prepare(place: Path, stock: Stock) -> list[str]:
        folder = copied(stock.model, place)
        (folder / "chat_template.jinja").unlink(missing_ok=True)
        file = folder / "tokenizer_config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "chat_template": template}))
        return [f"file:{stock.data}", *settings_without(stock, "model.path", "data.source"), f"model.path={folder}"]

    return prepare


def _settings(text: str):
    def prepare(place: Path, stock: Stock) -> list[str]:
        return [f"file:{stock.data}", *settings_without(stock, "data.source"), f"data.chat_settings={text}"]

    return prepare
