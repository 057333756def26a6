"""A learner on weights that another process holds in vLLM's own layout, against one that loads them from the file."""

import pickle
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.schema import Config
from microbudget_rl.conf.settings import changed
from microbudget_rl.learner.actor import LOOPBACK
from microbudget_rl.learner.learner import LoraLearner
from microbudget_rl.learner.model.shared_weights import model_on
from tests.actors.rollout.test_served_families import write
from tests.learner.helpers import batch, same, update, weights

pytestmark = pytest.mark.long

FEW = ("Qwen 2, 2.5", "Qwen 3", "Gemma 3, text", "Phi-3, Phi-4", "Cohere")


@contextmanager
def held(out: Path, *models: tuple[str, Path]) -> Iterator[list[dict[str, Tensor]]]:
    """Map the weights of models, each in its dtype, that another process holds inside this context."""
    out.mkdir()
    wanted = [f"{dtype}:{folder}" for dtype, folder in models]
    command = [sys.executable, "-m", "tests.learner.model.weights_holder", str(out), *wanted]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert any(line == "held\n" for line in holder.stdout)
        listening = [each.laddr for each in psutil.Process(holder.pid).net_connections() if each.status == "LISTEN"]
        assert all(address.ip == LOOPBACK for address in listening), listening
        yield [pickle.loads((out / str(number)).read_bytes()) for number in range(len(models))]
        holder.communicate("")


def write_all(names: Sequence[str], tokenizer: Path, folder: Path) -> list[Path]:
    folders = [folder / str(number) for number in range(len(names))]
    for name, each in zip(names, folders, strict=True):
        write(name, tokenizer, each)
    return folders


def lies_in(parameters: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> bool:
    memory = {tensor.untyped_storage().data_ptr() for tensor in weights.values()}
    return all(parameter.untyped_storage().data_ptr() in memory for parameter in parameters.values())


def assert_as_from_the_file(weights: Mapping[str, Tensor], folder: Path) -> None:
    mapped = model_on(weights, str(folder), torch.float32)
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    parameters = dict(mapped.named_parameters())
    assert same(parameters, dict(loaded.named_parameters()))
    assert same(dict(mapped.named_buffers()), dict(loaded.named_buffers()))
    assert lies_in(parameters, weights)
    assert not any(parameter.requires_grad for parameter in parameters.values())
    assert (mapped.training, mapped.config.name_or_path) == (loaded.training, loaded.config.name_or_path)
    ids = torch.arange(3, 40)[None]
    assert torch.equal(mapped(ids).logits, loaded(ids).logits)


def test_a_learner_trains_on_weights_of_another_process(tiny_config: Config, tiny_model: Path, tmp_path: Path):
    dtypes = ("float32", "bfloat16")
    folders = write_all(FEW, tiny_model, tmp_path)
    models = [(dtype, tiny_model) for dtype in dtypes] + [("float32", folder) for folder in folders]
    with held(tmp_path / "handles", *models) as found:
        for dtype, given in zip(dtypes, found[:2], strict=True):
            config = changed(tiny_config, {"model.dtype": dtype})
            before = {name: tensor.clone() for name, tensor in given.items()}
            loaded = LoraLearner(config, str(tiny_model), tmp_path / "loaded")
            mapped = LoraLearner(config, str(tiny_model), tmp_path / "mapped", weights=given)
            for version in range(2):
                mine, other = (update(learner, batch(version)) for learner in (mapped, loaded))
                for name in ("loss", "grad_norm", "policy/entropy"):
                    assert mine.metrics[name] == other.metrics[name]
                assert same(weights(mapped), weights(loaded))
            assert same(mapped._optimizer.state(), loaded._optimizer.state())
            assert lies_in({n: p for n, p in mapped.model.named_parameters() if not p.requires_grad}, given)
            assert same(given, before)
        for given, folder in zip(found[2:], folders, strict=True):
            assert_as_from_the_file(given, folder)
        spoilt = {name: tensor.clone() for name, tensor in found[2].items()}
        spoilt["model.layers.1.self_attn.qkv_proj.weight"].neg_()
        with pytest.raises(BadInput, match=re.escape("model.layers.1.self_attn.k_proj.weight")):
            model_on(spoilt, str(folders[0]), torch.float32)
