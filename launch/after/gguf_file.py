"""The base model merged with the adapter as one GGUF file, for llama.cpp and software built on it.

Sums are computed in float32 and rounded once, to float16 or to q8_0: blocks of 32 numbers of eight bits with a scale.
Norms and biases stay in float32. Models that transformers cannot load back are refused, because nothing could verify
them; llama.cpp's own converter takes their merged export.
"""

import json
from pathlib import Path
from typing import Any

import gguf
from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType, TokenType
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer

from actors.models.files import stop_token_ids
from conf.errors import BadInput
from launch.after.merged import summed
from launch.after.trained import Trained

LLAMA = gguf.MODEL_ARCH.LLAMA
ARCHITECTURES = {
    "LlamaForCausalLM": LLAMA,
    "MistralForCausalLM": LLAMA,
    "Qwen2ForCausalLM": gguf.MODEL_ARCH.QWEN2,
    "Qwen3ForCausalLM": gguf.MODEL_ARCH.QWEN3,
}

BYTES = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
DIGITS = {"type": "Digits", "individual_digits": True}


def words(numbers: str) -> list[dict[str, Any]]:
    """Return the steps with which Qwen2 and Llama 3 split a text. numbers: the pattern of a number, which differs."""
    pattern = (
        rf"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{numbers}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return [split, {**BYTES, "use_regex": False}]


SPLITS = {
    "gpt-2": [BYTES],
    "smollm": [DIGITS, BYTES],
    "qwen2": words(r"\p{N}"),
    "llama-bpe": words(r"\p{N}{1,3}"),
}
"""llama.cpp's name → the steps in tokenizer.json that split a text before pairs are merged."""

REMEDY = "give format=merged, and convert that with llama.cpp: python convert_hf_to_gguf.py FOLDER --outtype q8_0"


def check_convertible(trained: Trained) -> None:
    """Raise BadInput for a model or a tokenizer that `write_gguf` cannot write."""
    base = Path(trained.model_path)
    config = AutoConfig.from_pretrained(base)
    (architecture,) = config.architectures
    if architecture not in ARCHITECTURES:
        raise BadInput(f"format=gguf: does not support {architecture}; {REMEDY}")
    unsupported = {
        "scaled rotary positions": config.rope_parameters.get("rope_type", "default") != "default",
        "a sliding window": getattr(config, "use_sliding_window", True) and getattr(config, "sliding_window", None),
        "heads of another width than 128": architecture == "Qwen3ForCausalLM" and config.head_dim != 128,
    }
    if found := [name for name, present in unsupported.items() if present]:
        raise BadInput(f"format=gguf: the model has {found[0]}, which transformers cannot load back; {REMEDY}")
    split_name(AutoTokenizer.from_pretrained(base))


def split_name(loaded: Any) -> str:
    """Return llama.cpp's name for the way a tokenizer splits a text. Raises BadInput for any other tokenizer.

    loaded: the tokenizer in transformers, whose steps differ from the file's for some models.
    """
    tokenizer = json.loads(loaded.backend_tokenizer.to_str())
    first, model = tokenizer["pre_tokenizer"] or {}, tokenizer["model"]
    steps = [
        {key: value for key, value in step.items() if key != "trim_offsets"}
        for step in first.get("pretokenizers", [first])
    ]
    name = next((name for name, known in SPLITS.items() if known == steps), "")
    normalizer = (tokenizer["normalizer"] or {"type": "NFC"})["type"]
    kind = (model["type"], normalizer, bool(model.get("ignore_merges")))
    if not name or kind != ("BPE", "NFC", name == "llama-bpe"):
        raise BadInput(f"format=gguf: does not support the model's tokenizer; {REMEDY}")
    return name


def write_gguf(trained: Trained, kind: str, file: Path) -> None:
    """Write a model that has passed `check_convertible` as a GGUF file of the kind f16 or q8_0."""
    base = Path(trained.model_path)
    config = AutoConfig.from_pretrained(base)
    architecture = ARCHITECTURES[config.architectures[0]]
    quantization = GGMLQuantizationType[kind.upper()]
    writer = GGUFWriter(file, gguf.MODEL_ARCH_NAMES[architecture])
    writer.add_name(trained.run.path.resolve().name)
    writer.add_file_type(LlamaFileType[f"MOSTLY_{kind.upper()}"])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _describe(writer, config)
    _add_tokenizer(writer, trained, config.vocab_size)
    names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    for _, name, weight, _ in summed(trained.adapter, base):
        if config.tie_word_embeddings and name == "lm_head.weight":
            continue
        known = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if known is None:
            raise BadInput(f"format=gguf: does not support the weight {name}; {REMEDY}")
        if architecture == LLAMA:
            weight = _interleaved(name, weight, config)
        own = quantization if weight.ndim > 1 else GGMLQuantizationType.F32
        writer.add_tensor(known, gguf.quants.quantize(weight.float().numpy(), own), raw_dtype=own)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _interleaved(name: str, weight: Tensor, config: Any) -> Tensor:
    """Return queries and keys with the two halves of each head interleaved, as llama.cpp's Llama rotates them; other
    weights as they are.
    """
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(name.split(".")[-2])
    if heads is None:
        return weight
    return weight.reshape(heads, 2, -1, *weight.shape[1:]).transpose(1, 2).reshape(weight.shape)


def _describe(writer: GGUFWriter, config: Any) -> None:
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_dimension_count(head)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)


def _add_tokenizer(writer: GGUFWriter, trained: Trained, rows: int) -> None:
    """Write tokens, merges, special tokens and chat template. rows: the embedding's, some of which may be unused."""
    base = Path(trained.model_path)
    tokenizer = AutoTokenizer.from_pretrained(base)
    words = {number: token for token, number in tokenizer.get_vocab().items()}
    added = tokenizer.added_tokens_decoder
    kinds = {number: TokenType.CONTROL if token.special else TokenType.USER_DEFINED for number, token in added.items()}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(split_name(tokenizer))
    writer.add_token_list([words.get(number, f"[PAD{number}]") for number in range(rows)])
    writer.add_token_types(
        [kinds.get(number, TokenType.NORMAL) if number in words else TokenType.UNUSED for number in range(rows)]
    )
    gguf.SpecialVocab(base, load_merges=True, n_vocab=rows).add_to_gguf(writer, quiet=True)
    if ends := stop_token_ids(trained.config.model, tokenizer):
        writer.add_eot_token_id(ends[0])
