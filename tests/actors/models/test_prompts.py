from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers

from microbudget_rl.actors.models import prompts
from microbudget_rl.actors.models.prompts import tokenized

PROMPTS = [f"<|im_start|>user\n Sum? <|im_end|> <|im_end|>s <x> x<x> <x>{text}" for text in ("", "2", "2", "s", "<x>")]
SPLITTERS = [pre_tokenizers.ByteLevel(add_prefix_space=False), pre_tokenizers.Metaspace(prepend_scheme="first")]


@pytest.mark.parametrize("splitter", SPLITTERS)
@pytest.mark.parametrize("strips", [{}, {"lstrip": True}, {"rstrip": True}, {"single_word": True}])
def test_prompts_have_the_tokens_that_each_has_alone(
    splitter: Any, strips: dict[str, bool], monkeypatch: pytest.MonkeyPatch
):
    from transformers import PreTrainedTokenizerFast

    monkeypatch.setattr(prompts, "BATCH", 4)
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = splitter
    marks = ["<|im_start|>", "<|im_end|>", "<|im_end|>s", AddedToken("<x>", special=True, **strips)]
    trained.train_from_iterator(PROMPTS, trainers.BpeTrainer(special_tokens=marks, show_progress=False))
    tokenizer, texts = PreTrainedTokenizerFast(tokenizer_object=trained), [*PROMPTS, "", "no mark"]
    assert [*tokenized(texts, tokenizer)] == [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
