"""GGUF files in llama.cpp itself."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from launch import export
from launch.after.artifact import load_adapter
from launch.after.trained import find_trained
from tests.trained_runs import write_model, write_trained

PROMPTS = ["What is 3 + 4?", "What is 20 + 4? Say it in one word.", "Ab cd, 17 = x\n\n"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["llama", "llama_untied", "qwen2"])
def test_llama_cpp_says_what_transformers_says(kind: str, tiny_model: Path, tmp_path: Path) -> None:
    """llama.cpp splits the text into tokens as the file says. (q8_0 rounds what it multiplies too.)"""
    llama: Any = pytest.importorskip("xllamacpp", reason="pip install xllamacpp")
    model = tiny_model if kind == "llama" else write_model(tmp_path / kind, tiny_model, kind)
    run = write_trained(tmp_path / "runs" / "mine", model, std=0.2)
    assert export.main([str(run), "format=gguf", "type=f16", "to=out"]) == 0
    settings = llama.CommonParams()
    settings.model.path = str(*Path("out").glob("*.gguf"))
    settings.n_ctx, settings.cpuparams.n_threads, settings.warmup = 256, 1, False
    server = llama.Server(settings)
    trained, request = find_trained(run), {"max_tokens": 8, "temperature": 0, "cache_prompt": False}
    tokenizer = AutoTokenizer.from_pretrained(trained.model_path)
    reference = load_adapter(trained, trained.adapter)
    for prompt in PROMPTS:
        ids = torch.tensor([tokenizer(prompt, add_special_tokens=False)["input_ids"]])
        expected = reference.generate(ids, max_new_tokens=8, do_sample=False)[0, ids.shape[1] :]
        said = server.handle_completions({"prompt": prompt, **request})["choices"][0]["text"]
        assert said == tokenizer.decode(expected, skip_special_tokens=True)
