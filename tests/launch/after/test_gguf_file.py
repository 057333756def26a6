import json
from types import SimpleNamespace
from typing import Any

import pytest

from conf.errors import BadInput
from launch.after.gguf_file import BYTES, DIGITS, split_name, words


@pytest.mark.parametrize(
    ("steps", "model", "name"),
    [
        ([{**BYTES, "trim_offsets": True}], {}, "gpt-2"),
        ([DIGITS, BYTES], {}, "smollm"),
        (words(r"\p{N}"), {}, "qwen2"),
        (words(r"\p{N}{1,3}"), {"ignore_merges": True}, "llama-bpe"),
        (words(r"\p{N}{1,3}"), {}, None),
        ([{"type": "Metaspace"}], {}, None),
        ([BYTES], {"type": "Unigram"}, None),
    ],
)
def test_known_splits_have_a_name(steps: list[dict[str, Any]], model: dict[str, Any], name: str | None) -> None:
    content = {
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps} if len(steps) > 1 else steps[0],
        "model": {"type": "BPE", **model},
    }
    tokenizer = SimpleNamespace(backend_tokenizer=SimpleNamespace(to_str=lambda: json.dumps(content)))
    if name is None:
        with pytest.raises(BadInput, match=r"tokenizer.*format=merged"):
            split_name(tokenizer)
    else:
        assert split_name(tokenizer) == name
