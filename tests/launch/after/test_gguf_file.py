import json
from typing import Any

import pytest

from conf.errors import BadInput
from launch.after.gguf_file import split_name

BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
WORDS = {**BYTES, "use_regex": True}
DIGITS = {"type": "Digits", "individual_digits": True}


def split(numbers: str) -> dict[str, Any]:
    """The step by which Qwen2 and Llama 3 split a text, with another pattern for numbers."""
    pattern = (
        rf"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{numbers}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


class Tokenizer:
    """A tokenizer of transformers, as far as `split_name` reads it."""

    def __init__(self, steps: list[dict[str, Any]], model: dict[str, Any]) -> None:
        content = {
            "normalizer": None,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps} if len(steps) > 1 else steps[0],
            "model": {"type": "BPE", **model},
        }
        self.backend_tokenizer = self
        self.to_str = lambda: json.dumps(content)


@pytest.mark.parametrize(
    ("steps", "model", "name"),
    [
        ([WORDS], {}, "gpt-2"),
        ([DIGITS, WORDS], {}, "smollm"),
        ([split(r"\p{N}"), BYTES], {}, "qwen2"),
        ([split(r"\p{N}{1,3}"), BYTES], {"ignore_merges": True}, "llama-bpe"),
        ([{**WORDS, "add_prefix_space": True}], {}, None),
        ([split(r"\p{N}{1,2}"), BYTES], {}, None),
        ([split(r"\p{N}{1,3}"), BYTES], {}, None),
        ([split(r"\p{N}"), BYTES], {"ignore_merges": True}, None),
        ([{"type": "Metaspace"}], {}, None),
        ([WORDS], {"type": "Unigram"}, None),
    ],
)
def test_known_splits_have_a_name(steps: list[dict[str, Any]], model: dict[str, Any], name: str | None) -> None:
    if name is None:
        with pytest.raises(BadInput, match=r"tokenizer.*format=merged"):
            split_name(Tokenizer(steps, model))
    else:
        assert split_name(Tokenizer(steps, model)) == name
