"""Finds a model's files, here or on the hub, and reads the shape that they state."""

import hashlib
import math
import os
import re
from collections import defaultdict
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from safetensors import SafetensorError, safe_open
from typing_extensions import TypedDict

from microbudget_rl.actors.clock import in_thread
from microbudget_rl.actors.models.families import FUSED, UNEVEN, check_family, common_context, read_config, text_config
from microbudget_rl.actors.models.layers import kinds_of, layers_of
from microbudget_rl.actors.models.text_part import STORED, wrapped
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.parsing import path_of, read_json, reason
from microbudget_rl.conf.schema import ModelConfig, ShapeConfig
from microbudget_rl.conf.schema.model import MODULE_NAMES, PIN

HUB_TIMEOUT_S = 10.0
"""Seconds without a byte of the hub, of which an answer may take twice as many. Its library alone waits for ever, or
tries six times in half a minute."""

BUNDLED = "bundled:smollm2-135m"

HUB_NAMES = {BUNDLED: "HuggingFaceTB/SmolLM2-135M-Instruct"}
"""Hub ids of the originals of bundled models, which are copies packed into 4 bits (Q4_1)."""

ON_HUB = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@(\w[\w.-]*))?")
"""Pattern of OWNER/NAME[@REVISION]."""

BLOCK, BLOCKS = 2**14, 2**10
"""Bytes of a block that a digest reads, and most blocks of a weight file: training changes all parts of it."""

WEIGHT_INDEX = "model.safetensors.index.json"
"""File that names the file of each weight, in a model that has several."""

SHAPE_FILES = ["config.json"]
TOKENIZER_FILES = ["tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt"]
WEIGHT_FILES = ["*.safetensors", "*.safetensors.index.json"]
OTHER_FILES = ["generation_config.json", "chat_template*", "*processor_config.json"]
MODEL_FILES = [*SHAPE_FILES, *TOKENIZER_FILES, *WEIGHT_FILES, *OTHER_FILES]
"""Files that are fetched from the hub: never code, never pickles."""

SHAPE_KEYS = (
    *("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "vocab_size"),
    "max_position_embeddings",
)
"""Fields of ShapeConfig that every config.json of a Llama-shaped model states."""

TIED_BY_DEFAULT = {
    *("cohere", "cohere2", "ernie4_5", "gemma", "gemma2", "gemma3_text", "gemma4_text", "lfm2", "minicpm3", "smollm3"),
    *("starcoder2", "vaultgemma"),
}
"""Values of `model_type` for which transformers ties the head to the embedding unless config.json says otherwise."""

HEAD_NORMED = {"afmoe", "apertus", "exaone4", "gemma3_text", "gemma4_text", "lfm2", "olmo2", "olmo3", "qwen3"}
HEAD_NORMED |= {"qwen3_5_text"}
"""Values of `model_type` with norms of queries and keys; other models state them under one of HEAD_NORM_KEYS."""

HEAD_NORM_KEYS = ("use_qk_norm", "qk_layernorm")

Shard = Annotated[str, Field(pattern=r"^[\w.-]+\.safetensors$")]


class Index(TypedDict):
    """model.safetensors.index.json."""

    weight_map: Annotated[dict[str, Shard], Field(min_length=1)]


LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.(?!.*\brotary_emb\b)(.+)")
"""Matches a weight's name: the layer's number, and the name there. Old files hold rotary_emb in some layers."""


class HubAway(Exception):
    """The hub cannot be reached, or answers nonsense. Its text says which of them, and the kind of error."""


def locate(model: ModelConfig) -> str:
    """Return the local folder with the model's config.json, tokenizer and safetensors weights, fetched if need be.

    Raises BadInput if the model is missing, unreachable or gated, lacks weights, is not what `model.pin` names, or
    differs from its declared shape.
    """
    actual = vars(shape_from_config(_folder(model, SHAPE_FILES)))
    for name, declared in vars(model.shape).items():
        if model.shape != ShapeConfig() and declared != actual[name]:
            raise BadInput(f"model.shape.{name}={declared}: {model.path} has {actual[name]}; leave model.shape out")
    folder = _folder(model, MODEL_FILES)
    _check_weights(folder, model.path)
    return str(folder)


def pin_of(model: ModelConfig) -> str:
    """Return `model.pin`, or the present commit of a hub model or digest of a folder. Only config.json is fetched."""
    return model.pin or model_digest(_folder(model, SHAPE_FILES))


def known_pin(model: ModelConfig) -> str:
    """Return `pin_of` without a network: of a hub model the commit in the cache. Empty if nothing of it is here."""
    name, revision = name_on_hub(model)
    with suppress(BadInput, ModuleNotFoundError, OSError, ValueError):  # no hub here, or a damaged cache
        if name and not model.pin:
            from huggingface_hub import try_to_load_from_cache

            cached = try_to_load_from_cache(name, "config.json", revision=revision)
            return Path(cached).parent.name if isinstance(cached, str) else ""
        return pin_of(model)
    return ""


def model_digest(folder: str | Path) -> str:
    """Return a digest of a model's files: names, sizes, and contents, of large weight files only parts, evenly spread.
    In the hub's cache it is the commit, which names the folder.
    """
    if re.fullmatch(PIN, name := Path(folder).name):
        return name
    digest = hashlib.blake2b(digest_size=20)
    files = {file for pattern in MODEL_FILES for file in Path(folder).glob(pattern)}
    for file in sorted(file for file in files if file.is_file()):
        size = file.stat().st_size
        digest.update(repr((file.name, size)).encode())
        try:
            with file.open("rb") as content:
                for start in range(0, size, max(size // BLOCKS, BLOCK) if file.suffix == ".safetensors" else BLOCK):
                    content.seek(start)
                    digest.update(content.read(BLOCK))
        except OSError as error:
            raise BadInput(f"model.path: {file} cannot be read ({reason(error)}); restore it") from None
    return digest.hexdigest()


def name_on_hub(model: ModelConfig) -> tuple[str, str | None]:
    """Return a model's OWNER/NAME and revision; an empty name for a folder and for the bundled model."""
    match = ON_HUB.fullmatch(model.path)
    if match is None or os.path.lexists(Path(model.path) / "config.json"):
        return "", None
    return match[1], model.pin or match[2]


def shape_of(model: ModelConfig) -> ShapeConfig:
    """Return the declared shape, or config.json's. Raises BadInput for a family that cannot be trained."""
    if model.shape != ShapeConfig():
        return model.shape
    folder = config_folder(model)
    check_family(folder)
    return shape_from_config(folder)


def config_folder(model: ModelConfig) -> Path:
    """Return the folder with a model's config.json, the only file that is fetched for it."""
    return _folder(model, SHAPE_FILES)


def load_tokenizer(folder: str, path: str) -> Any:
    """Return the tokenizer of a model in a local folder without running code from there.

    path: the value of model.path. Raises BadInput if transformers cannot load configuration or tokenizer.
    """
    from transformers import AutoConfig, AutoTokenizer

    try:
        AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        tokenizer("a")  # fails if model_max_length is no number
        return tokenizer
    except Exception as error:  # the library tokenizers raises plain Exceptions
        fault = f"transformers cannot load its configuration or tokenizer ({type(error).__name__}: {reason(error)})"
        remedy = "restore the files, or choose a model that needs no code of its own"
        raise BadInput(f"model.path={path}: {fault}; {remedy}") from None


def found_here(path: str, model: ModelConfig) -> str:
    """Return the model's folder on this machine; `locate` may have found `path` on another one."""
    return path if Path(path).is_dir() else locate(model)


def bundled_folder() -> Path:
    """Return the folder of the bundled model, which set-up fills."""
    cache = os.environ.get("XDG_CACHE_HOME") or path_of("~/.cache", "XDG_CACHE_HOME")
    return Path(cache) / "microbudget-rl" / "smollm2-135m-instruct"


def stop_token_ids(model: ModelConfig, tokenizer: Any) -> list[int]:
    """Return the ids of `model.stop_tokens`. Raises BadInput if the tokenizer lacks one."""
    known, special = tokenizer.get_vocab(), ", ".join(tokenizer.all_special_tokens)
    for token in model.stop_tokens:
        if token not in known:
            raise BadInput(f"model.stop_tokens: {token!r} is no token of {model.path}; choose from {special}")
    return [known[token] for token in model.stop_tokens]


def linear_modules(stated: dict[str, Any]) -> list[str]:
    """Return the linear modules of a model. No library attaches an adapter to the `out_proj` of Falcon-H1."""
    kind = stated.get("model_type")
    if kind == "phi3":  # queries, keys and values in one, as gate and up
        return ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]
    unserved = {"out_proj"} if kind == "falcon_h1" else set()
    there = set[str]().union(*(layer.linear for layer in layers_of(shape_stated(stated)))) - unserved
    return [name for name in MODULE_NAMES if name in there]


def shape_from_config(folder: str | Path) -> ShapeConfig:
    """Return the shape stated by a folder's config.json. Raises BadInput if the model is not Llama-shaped."""
    return shape_stated(text_config(read_config(folder)), Path(folder) / "config.json")


def shape_stated(stated: dict[str, Any], path: object = "config.json") -> ShapeConfig:
    """Return the shape by a config.json's part for text. Its context ends where engine and learner begin to differ."""
    if missing := [key for key in SHAPE_KEYS if key not in stated]:
        raise BadInput(f"{path}: states no {missing[0]}; choose a model of the Llama, Qwen or Mistral kind")
    sizes = {key: stated[key] for key in SHAPE_KEYS}
    if common := common_context(stated):
        sizes["max_position_embeddings"] = min(common, sizes["max_position_embeddings"])
    heads = sizes["num_attention_heads"]
    kv_heads = stated.get("num_key_value_heads") or heads
    if heads % kv_heads:
        raise BadInput(f"{path}: num_key_value_heads={kv_heads} does not divide the heads, {heads}; restore the file")
    if stated.get("model_type") == "lfm2" and stated.get("block_auto_adjust_ff_dim", True):
        width, multiple = int(2 * sizes["intermediate_size"] / 3), stated.get("block_multiple_of", 256)
        width = int(stated.get("block_ffn_dim_multiplier", 1.0) * width)
        sizes["intermediate_size"] = multiple * math.ceil(width / multiple)
    return ShapeConfig(
        **sizes,
        num_key_value_heads=kv_heads,
        head_dim=stated.get("head_dim") or sizes["hidden_size"] // heads,
        tie_word_embeddings=stated.get("tie_word_embeddings", stated.get("model_type") in TIED_BY_DEFAULT),
        fused_family=stated.get("model_type") in FUSED,
        head_norms=stated.get("model_type") in HEAD_NORMED or any(stated.get(key) is True for key in HEAD_NORM_KEYS),
        **kinds_of(stated),
    )


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a model's weights; its folder may hold others."""
    index = folder / WEIGHT_INDEX
    if not os.path.lexists(index):
        return [folder / "model.safetensors"]
    weight_map = read_json(index, Index, "restore the model's own file")["weight_map"]
    return sorted({folder / shard for shard in weight_map.values()})


def _folder(model: ModelConfig, patterns: list[str]) -> Path:
    """Return the folder of a model, with at least its config.json, as it was when it was pinned."""
    path = model.path
    folder = bundled_folder() if path == BUNDLED else path_of(path, f"model.path={path}")
    there = os.path.lexists(folder / "config.json")
    if path == BUNDLED and not there:
        commands = "bash launch/setup.sh, or in an installed package by microbudget bundled"
        raise BadInput(f"model.path={path}: the bundled model is not in {folder}; put it there by {commands}")
    if not there:
        if os.path.isdir(folder):
            raise BadInput(f"model.path={path}: the folder has no config.json; name a Hugging Face model folder")
        if not (match := ON_HUB.fullmatch(path)):
            forms = f"a local folder, a Hub id OWNER/NAME[@REVISION] or {BUNDLED}"
            raise BadInput(f"model.path={path}: no such folder; name {forms}")
        folder = _from_hub(match[1], model.pin or match[2] or "main", patterns)
    if model.pin and (digest := model_digest(folder)) != model.pin:
        fault = f"model.path={path}: {folder} now holds other files, {digest}, than those of model.pin={model.pin}"
        raise BadInput(f"{fault}; restore them, or begin again with another run.name")
    return folder


def _from_hub(name: str, revision: str, patterns: list[str]) -> Path:
    """Return a revision's folder in the hub's cache, fetched first unless it is a commit there or the hub is away."""
    import httpx2
    from huggingface_hub import constants, errors, get_cached_repo_tree, snapshot_download

    page, instead = f"https://huggingface.co/{name}", "name a local folder that holds the model"
    wanted: dict[str, Any] = {"revision": revision, "allow_patterns": patterns, "ignore_patterns": "*/*"}
    try:
        if re.fullmatch(PIN, revision):
            with suppress(errors.LocalEntryNotFoundError, errors.CachedRepoTreeNotFoundError):
                get_cached_repo_tree(name, revision=revision)  # without it, nothing says whether files are missing
                return Path(snapshot_download(name, local_files_only=True, **wanted))
        try:
            newest(name, revision)
        except HubAway:
            return Path(snapshot_download(name, local_files_only=True, **wanted))
        return Path(snapshot_download(name, **wanted))
    except errors.GatedRepoError:
        fault = f"the model is gated; accept its licence at {page} and set HF_TOKEN, or {instead}"
    except errors.RepositoryNotFoundError:
        fault = f"neither a folder here nor a public model at {page}; correct the name, or set HF_TOKEN"
    except errors.RevisionNotFoundError:
        fault = f"neither {page} nor the cache has revision {revision}; name another as {name}@REVISION in a new run"
    except (errors.LocalEntryNotFoundError, errors.HfHubHTTPError, httpx2.TransportError) as error:
        away = error.__context__
        cause = away if isinstance(away, HubAway) else f"cannot be reached ({type(away or error).__name__})"
        fault = f"not in the local cache, and the Hugging Face Hub {cause}: check network, or {instead}"
    except (OSError, ValueError, LookupError, TypeError) as error:
        fault = f"{constants.HF_HOME} cannot be used ({reason(error)}); delete damaged files, set HF_HOME, or {instead}"
    raise BadInput(f"model.path={name}: {fault}")


def newest(name: str, branch: str | None = None, kind: str = "model") -> str:
    """Return the commit of the newest revision of a model or a dataset, OWNER/NAME, or of a branch, tag or commit.

    Raises HubAway, BadInput for a token that no request can carry, and huggingface_hub's RevisionNotFoundError,
    RepositoryNotFoundError and its subclass GatedRepoError.
    """
    from huggingface_hub import HfApi, errors, get_token, utils

    if not re.fullmatch("[!-~]*", get_token() or ""):
        raise BadInput("HF_TOKEN: this token of the Hugging Face Hub holds characters that no token has; copy it again")
    utils.logging.set_verbosity_error()  # our message says it
    try:
        ask = partial(HfApi().repo_info, name, revision=branch, repo_type=kind, timeout=HUB_TIMEOUT_S)
        revision = in_thread(2 * HUB_TIMEOUT_S, ask).sha or ""
        if not re.fullmatch(PIN, revision):
            raise ValueError(revision)
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError):
        raise
    except Exception as error:  # a proxy's answer can raise anything
        what = "answers nonsense" if isinstance(error, (ValueError, TypeError, LookupError)) else "cannot be reached"
        raise HubAway(f"{what} ({type(error).__name__})") from error
    return revision


def _check_weights(folder: Path, path: str) -> None:
    """Raise BadInput unless all safetensors weights are there: transformers would draw missing ones at random."""
    shards, stated = weight_files(folder), shape_from_config(folder).num_hidden_layers
    part, begin = text_config(read_config(folder)), STORED if wrapped(folder) else ""
    if missing := [shard.name for shard in shards if not shard.is_file()]:
        if any(folder.glob("pytorch_model*.bin")):
            fault = f"{folder} holds pickled weights, which can run code when loaded; save the model as safetensors"
        else:
            fault = f"{missing[0]} is missing in {folder}; name a folder with safetensors weights"
        raise BadInput(f"model.path={path}: {fault}")
    layers: dict[str, set[int]] = defaultdict(set)
    for shard in shards:
        try:
            with safe_open(shard, framework="numpy") as weights:
                names = weights.keys()
        except (OSError, SafetensorError) as error:
            raise BadInput(f"model.path={path}: {shard} cannot be read ({error}); fetch it again") from None
        for match in filter(None, (LAYER.search(name) for name in names if name.startswith(begin))):
            kind = "a layer" if part.get("model_type") in UNEVEN else match[2]
            layers[kind].add(int(match[1]))
    for name, numbers in layers.items() or [("a layer", set())]:
        if numbers != set(range(stated)):
            fault = f"its files have {name} {len(numbers)} times, and config.json says num_hidden_layers={stated}"
            raise BadInput(f"model.path={path}: {fault}; restore the model's own files")
