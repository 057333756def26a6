from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from microbudget_rl.actors.models import prompts
from microbudget_rl.actors.models.prompts import tokenized

EXAMPLE = "<|im_start|>user\nWhat is 1 + 1?<|im_end|>\n<|im_start|>assistant\n2<|im_end|>\n"
PROMPTS = [f"{EXAMPLE}<|im_start|>user\n What is {number} <|im_end|> <|im_end|>s?" for number in range(5)]
SPLITTERS = [pre_tokenizers.ByteLevel(add_prefix_space=False), pre_tokenizers.Metaspace(prepend_scheme="first")]


@pytest.mark.parametrize("splitter", SPLITTERS)
@pytest.mark.parametrize("strips", [{}, {"lstrip": True}, {"rstrip": True}, {"single_word": True}])
def test_prompts_have_the_tokens_that_each_has_alone_and_shared_parts_are_tokenized_once(
    splitter: Any, strips: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompts, "BATCH", 4)
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = splitter
    marks = ["<|im_start|>", "<|im_end|>", "<|im_end|>s", AddedToken("<x>", special=True, **strips)]
    trained.train_from_iterator(PROMPTS, trainers.BpeTrainer(special_tokens=marks, show_progress=False))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=trained)
    texts = [*PROMPTS, *(text.replace("What", " <x> x<x> <x>") for text in PROMPTS), "", "no mark"]
    assert [*tokenized(texts, tokenizer)] == [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    asked = list[str]()

    def spell(_: object, parts: list[str], **__: object) -> dict[str, list[str]]:
        asked.extend(parts)
        return {"input_ids": parts}

    monkeypatch.setattr(PreTrainedTokenizerFast, "__call__", spell)
    assert ["".join(parts) for parts in tokenized(PROMPTS[:4], tokenizer)] == PROMPTS[:4]
    assert len("".join(asked)) < len("".join(PROMPTS[:2])) or "lstrip" in strips or "single_word" in strips
