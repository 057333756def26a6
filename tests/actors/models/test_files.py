import contextlib
import json
import socket
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import httpx2
import huggingface_hub.constants
import numpy
import pytest
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
from safetensors.numpy import save_file

from microbudget_rl.actors.models import files
from microbudget_rl.actors.models.files import bundled_folder, locate, shape_from_config, shape_of
from microbudget_rl.actors.models.sizes import PLAIN, kept_on
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.schema import Config, ModelConfig, ShapeConfig

SIZES: dict[str, Any] = {"num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4}
SIZES |= {"num_key_value_heads": 2, "head_dim": 16, "vocab_size": 100, "max_position_embeddings": 256}
SIZES |= {"tie_word_embeddings": True}
SHAPE = ShapeConfig(**SIZES)
STATED = {"model_type": "llama", **SIZES}


def write_model(folder: Path, stated: dict[str, Any] | None = None, weights: str = "model.safetensors") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(STATED if stated is None else stated))
    write_weights(folder / weights, range(2))
    return folder


def write_weights(file: Path, layers: Iterable[int]) -> None:
    save_file({f"model.layers.{layer}.mlp.up_proj.weight": numpy.zeros((1, 1)) for layer in layers}, file)


def test_shape_of_a_local_or_declared_model(tmp_path: Path):
    folder = write_model(tmp_path / "model")
    model = ModelConfig(path=str(folder))
    assert locate(model) == str(folder)
    assert shape_of(model) == SHAPE
    assert shape_of(ModelConfig(path="/nowhere", shape=SHAPE)) is SHAPE
    stated = {key: value for key, value in STATED.items() if key not in ("num_key_value_heads", "head_dim")}
    shape = shape_from_config(write_model(tmp_path / "old", stated))
    assert (shape.num_key_value_heads, shape.head_dim) == (4, 16)


@pytest.mark.parametrize(
    ("stated", "has"),
    [
        ({"model_type": "llama"}, False),
        ({"model_type": "qwen3"}, True),
        ({"model_type": "cohere"}, False),
        ({"model_type": "cohere", "use_qk_norm": True}, True),
    ],
)
def test_head_norms_follow_from_family_or_setting(stated: dict[str, Any], has: bool, tmp_path: Path):
    assert shape_from_config(write_model(tmp_path, STATED | stated)).head_norms is has


def test_a_plan_knows_the_families_with_fused_kernels(tmp_path: Path):
    gemma = shape_from_config(write_model(tmp_path, STATED | {"model_type": "gemma3_text"}))
    assert (SHAPE.fused_family, gemma.fused_family) == (True, False)
    config = Config()
    assert kept_on(config, SHAPE, gpu=True) != kept_on(config, gemma, gpu=True) == PLAIN


def test_bundled_model_is_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    model = ModelConfig(path="bundled:smollm2-135m")
    with pytest.raises(BadInput, match=r"launch/setup\.sh.*microbudget bundled"):
        locate(model)
    write_model(bundled_folder())
    assert locate(model) == str(tmp_path / "microbudget-rl" / "smollm2-135m-instruct")


def test_unusable_folders_are_refused(tmp_path: Path):
    shape = ShapeConfig(**{**vars(SHAPE), "num_hidden_layers": 3})
    sound, pickled = write_model(tmp_path / "a"), write_model(tmp_path / "b", weights="pytorch_model.bin")
    for model, words in (
        (ModelConfig(path=str(sound), shape=shape), r"model.shape.num_hidden_layers=3: .*2"),
        (ModelConfig(path=str(pickled)), "pickled"),
        (ModelConfig(path=str(tmp_path)), r"no config\.json"),
        (ModelConfig(path=str(write_model(tmp_path / "c", {"n_layer": 12}))), "states no num_hidden_layers"),
    ):
        with pytest.raises(BadInput, match=words):
            locate(model)


def test_a_missing_shard_is_named(tmp_path: Path):
    folder = write_model(tmp_path, weights="model-00001-of-00002.safetensors")
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    with pytest.raises(BadInput, match=r"model-00002-of-00002\.safetensors is missing"):
        locate(ModelConfig(path=str(folder)))
    write_weights(folder / "model-00001-of-00002.safetensors", [0])
    write_weights(folder / "model-00002-of-00002.safetensors", [1])
    assert locate(ModelConfig(path=str(folder))) == str(folder)


@pytest.mark.parametrize("path", ["/no/such/folder", "./model", "gpt2", "a/b/c", "bundled:other"])
def test_neither_a_folder_nor_a_hub_id(path: str):
    with pytest.raises(BadInput, match="no such folder"):
        locate(ModelConfig(path=path))


@pytest.mark.parametrize("error", [GatedRepoError, RepositoryNotFoundError])
def test_a_gated_or_private_model_needs_a_token(error: type[RepositoryNotFoundError], monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: Any, **__: Any) -> None:
        raise error("no", response=httpx2.Response(403, request=httpx2.Request("GET", "https://huggingface.co")))

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", refuse)
    with pytest.raises(BadInput, match=r"https://huggingface\.co/owner/name.*HF_TOKEN"):
        locate(ModelConfig(path="owner/name"))


def test_a_hub_that_sends_a_byte_now_and_then_costs_its_timeout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def drip(server: socket.socket) -> None:
        with contextlib.suppress(OSError), server.accept()[0] as connection:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n")
            while not ended.wait(0.05):
                connection.sendall(b" ")

    ended = threading.Event()
    monkeypatch.setattr(files, "HUB_TIMEOUT_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=drip, args=(server,))
        thread.start()
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
        with pytest.raises(BadInput, match=r"TimeoutError.*local folder"):
            shape_of(ModelConfig(path="owner/name"))
        ended.set()
        thread.join()


@pytest.mark.parametrize("layers", [[], [0], [0, 2], [0, 1, 2]])
def test_weights_of_another_number_of_layers(layers: list[int], tmp_path: Path):
    write_weights(write_model(tmp_path) / "model.safetensors", layers)
    with pytest.raises(BadInput, match=r"num_hidden_layers=2; restore"):
        locate(ModelConfig(path=str(tmp_path)))


@pytest.mark.parametrize("token", ["häß", "a b", "a\x1bb"])
def test_a_token_that_no_request_can_carry(token: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(BadInput, match="HF_TOKEN"):
        locate(ModelConfig(path="owner/name"))
