"""Model folders that are damaged, incomplete or lie about themselves."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.hostile.case import DAMAGES, Case, a_folder, a_loop, a_pipe, copied
from tests.hostile.stock import Stock

Damage = Callable[[Path], None]

SIZES = (
    "num_hidden_layers",
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "vocab_size",
    "max_position_embeddings",
)
LIES: tuple[Any, ...] = (0, -1, "8", True, 2.5, [2], 10**30)

BAD_CONFIG: dict[str, dict[str, Any]] = {
    **{f"{size} is {lie!r}"[:60]: {size: lie} for size in SIZES for lie in LIES},
    "tie_word_embeddings is a text": {"tie_word_embeddings": "yes"},
    "kv heads do not divide heads": {"num_key_value_heads": 3},
    "more kv heads than heads": {"num_key_value_heads": 64},
    "odd head_dim": {"head_dim": 33},
    "model_type is a number": {"model_type": 3},
    "model_type is unknown": {"model_type": "no_such_model"},
    "architectures is a text": {"architectures": "LlamaForCausalLM"},
    "rope_parameters is a text": {"rope_parameters": "yarn"},
    "deep rope_parameters": {"rope_parameters": json.loads("[" * 900 + "]" * 900)},
}
NEVER_READ = ("architectures", "rope_parameters", "odd head_dim")


def cases() -> Iterator[Case]:
    for name, lies in BAD_CONFIG.items():
        yield _model(name, _config(lies), None if name.startswith((*NEVER_READ, "deep rope")) else True)
    for size in SIZES[:4]:
        yield _model(f"without {size}", _config({}, without=size))
    for damage in DAMAGES:
        for file in ("config.json", "tokenizer.json", "model.safetensors", "tokenizer_config.json"):
            if file == "tokenizer_config.json" and damage.__name__ == "an_object":
                continue
            name = f"{file}: {damage.__name__}"
            absent = file == "tokenizer_config.json" and damage in (a_folder, a_pipe, a_loop)
            yield _model(name, lambda folder, file=file, damage=damage: damage(folder / file), None if absent else True)
    yield from _weights()
    yield from _tokenizers()
    yield _model("is a file", _is_a_file)
    yield _model("is empty", lambda folder: [file.unlink() for file in folder.iterdir()])


def _weights() -> Iterator[Case]:
    indexes: dict[str, Any] = {
        "without weight_map": {"metadata": {}},
        "whose weight_map is a list": {"weight_map": ["model.safetensors"]},
        "whose weight_map is empty": {"weight_map": {}},
        "whose shards are numbers": {"weight_map": {"a": 1}},
        "whose shard is missing": {"weight_map": {"a": "model-00001-of-00002.safetensors"}},
        "whose shard is outside": {"weight_map": {"a": "../../../etc/passwd"}},
        "whose shard is a pickle": {"weight_map": {"a": "pytorch_model.bin"}},
        "whose shard has a NUL": {"weight_map": {"a": "a\0b"}},
        "whose shard is a list": {"weight_map": {"a": ["x"]}},
        "that is a list": [1],
        "that is null": None,
    }
    for name, index in indexes.items():
        yield _model(f"an index {name}", lambda folder, index=index: _write(folder, INDEX, json.dumps(index)))
    yield _model("an index nested deeply", lambda folder: _write(folder, INDEX, "[" * 10_000))
    yield _model("an index that is a folder", lambda folder: (folder / INDEX).mkdir())
    yield _model("only pickled weights", _pickled)


INDEX = "model.safetensors.index.json"


def _tokenizers() -> Iterator[Case]:
    yield _model("no tokenizer", lambda folder: [file.unlink() for file in folder.glob("tokenizer*")])
    settings: dict[str, dict[str, Any]] = {
        "unknown tokenizer_class": {"tokenizer_class": "NoSuchTokenizer"},
        "tokenizer_class is a number": {"tokenizer_class": 3},
        "tokenizer that needs sentencepiece": {"tokenizer_class": "BertJapaneseTokenizer"},
        "auto_map of a tokenizer": {
            "tokenizer_class": "Own",
            "auto_map": {"AutoTokenizer": ["own.Own", None]},
        },
        "chat_template is a number": {"chat_template": 3},
        "eos_token is a number": {"eos_token": 3},
        "eos_token is a list": {"eos_token": ["a"]},
        "model_max_length is a text": {"model_max_length": "many"},
    }
    for name, given in settings.items():
        refused = None if name.startswith(("unknown", "tokenizer_class", "chat_template")) else True
        yield _model(name, _json("tokenizer_config.json", given), refused)
    tokenizers: dict[str, dict[str, Any]] = {
        "model of the tokenizer is a text": {"model": "BPE"},
        "merges are numbers": {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [1]}},
        "vocabulary is a list": {"model": {"type": "BPE", "vocab": ["a"], "merges": []}},
        "vocabulary of negative ids": {"model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}},
        "added tokens are a text": {"added_tokens": "x"},
    }
    for name, given in tokenizers.items():
        yield _model(name, _json("tokenizer.json", given))
    yield _model("custom code by auto_map", _custom_code)


def _model(name: str, damage: Callable[[Path], Any], refused: bool | None = True) -> Case:
    def prepare(place: Path, stock: Stock) -> list[str]:
        folder = copied(stock.model, place)
        damage(folder)
        return [f"file:{stock.data}", *settings_without(stock, "model.path", "data.source"), f"model.path={folder}"]

    return Case("model folders", name, "problems", prepare, refused)


def settings_without(stock: Stock, *keys: str) -> list[str]:
    return [setting for setting in stock.settings if setting.partition("=")[0] not in keys]


def _config(given: dict[str, Any], without: str = "") -> Damage:
    return _json("config.json", given, without)


def _json(file: str, given: dict[str, Any], without: str = "") -> Damage:
    def damage(folder: Path) -> None:
        content = {**json.loads((folder / file).read_text()), **given}
        content.pop(without, None)
        (folder / file).write_text(json.dumps(content))

    return damage


def _write(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)


def _pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _is_a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("a model")


def _custom_code(folder: Path) -> None:
    """A model that is nothing without its own code, which would leave a mark if it ran."""
    _config({"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoTokenizer": ["own.T", None]}})(folder)
    _json("tokenizer_config.json", {"tokenizer_class": "T", "auto_map": {"AutoTokenizer": ["own.T", None]}})(folder)
    (folder / "own.py").write_text(f"open({str(folder / 'it-ran')!r}, 'w')\nclass T: pass\nclass Config: pass\n")
