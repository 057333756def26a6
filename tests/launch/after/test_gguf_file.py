import json
from typing import Any

import pytest

from conf.errors import BadInput
from launch.after.gguf_file import split_name

BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
WORDS = {**BYTES, "use_regex": True}
DIGITS = {"type": "Digits", "individual_digits": True}


def cut(numbers: str) -> dict[str, Any]:
    """The step by which Qwen2 and Llama 3 cut a text, but for how they cut numbers."""
    pattern = (
        rf"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{numbers}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


class Tokenizer:
    """One of transformers, as which it is passed to `split_name`."""

    def __init__(self, content: dict[str, Any]) -> None:
        self.backend_tokenizer = self
        self.to_str = lambda: json.dumps(content)


def loaded(steps: list[dict[str, Any]], **model: Any) -> Tokenizer:
    tokenizer = {
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps} if len(steps) > 1 else steps[0],
        "model": {"type": "BPE", **model},
    }
    return Tokenizer(tokenizer)


@pytest.mark.parametrize(
    ("steps", "model", "name"),
    [
        ([WORDS], {}, "gpt-2"),
        ([DIGITS, WORDS], {}, "smollm"),
        ([cut(r"\p{N}"), BYTES], {}, "qwen2"),
        ([cut(r"\p{N}{1,3}"), BYTES], {"ignore_merges": True}, "llama-bpe"),
    ],
)
def test_known_ways_to_cut_a_text(steps: list[dict[str, Any]], model: dict[str, Any], name: str) -> None:
    assert split_name(loaded(steps, **model)) == name


@pytest.mark.parametrize(
    ("steps", "model"),
    [
        ([{**WORDS, "add_prefix_space": True}], {}),
        ([cut(r"\p{N}{1,2}"), BYTES], {}),
        ([cut(r"\p{N}{1,3}"), BYTES], {}),
        ([cut(r"\p{N}"), BYTES], {"ignore_merges": True}),
        ([{"type": "Metaspace"}], {}),
        ([WORDS], {"type": "Unigram"}),
    ],
)
def test_others_are_refused(steps: list[dict[str, Any]], model: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="tokenizer is of a kind that is not known; give format=merged"):
        split_name(loaded(steps, **model))
