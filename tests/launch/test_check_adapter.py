"""The check of an adapter against a server, which computes with transformers and PEFT and makes a mistake."""

import json
import re
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from microbudget_rl.launch.check_adapter import main
from microbudget_rl.learner.model.adapter import scaled
from tests.trained_runs import save_adapter

pytestmark = pytest.mark.long

Check = Callable[..., int]
Change = Callable[[Any], Any]
"""From a model to the context in which it makes a mistake."""


def without(*kinds: str) -> Change:
    return lambda model: scaled(model, 0.0, [name for name, _ in model.named_modules() if name.endswith(kinds)])


@pytest.fixture(scope="module")
def adapters(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Adapters as PEFT saves them. The base of the stranger is another model."""
    kinds = {"mine": (0.1, 0), "other": (0.1, 1), "faint": (1e-6, 2), "stranger": (0.1, 3)}
    folders = {name: save_adapter(tmp_path_factory.mktemp(name), tiny_model, *kind) for name, kind in kinds.items()}
    stated = folders["stranger"] / "adapter_config.json"
    stated.write_text(stated.read_text().replace(str(tiny_model), "another/model"))
    return folders


@pytest.fixture(scope="module")
def model(tiny_model: Path, adapters: dict[str, Path]) -> Any:
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16)
    model = PeftModel.from_pretrained(base, str(adapters["mine"]), autocast_adapter_dtype=False)
    model.load_adapter(str(adapters["other"]), "other", autocast_adapter_dtype=False)
    return model.eval()


@pytest.fixture
def check(model: Any, tiny_model: Path, adapters: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Check:
    """Carries out the command. The server's host is its fault, and it makes mistakes as `base` and as `mine`."""

    def check(adapter: str, options: str, **mistakes: Change) -> int:
        @torch.no_grad()
        def respond(request: httpx2.Request) -> httpx2.Response:
            if request.url.host == "hangs":
                raise httpx2.ReadTimeout(f"after {request.extensions['timeout']['read']}")
            if request.method == "GET":
                models = [{"id": "base"}, {"id": "mine", "parent": "base"}, {"id": "other", "parent": "base"}]
                return httpx2.Response(200, json={"data": models}, request=request)
            asked = json.loads(request.content)
            assert asked["logprobs"] <= 5
            with ({"base": PeftModel.disable_adapter} | mistakes).get(asked["model"], nullcontext)(model):
                logprobs = model(torch.tensor([asked["prompt"]])).logits[0, :-1].log_softmax(-1)
            model.set_adapter("default")
            found = [None, *logprobs.gather(1, torch.tensor(asked["prompt"][1:])[:, None])[:, 0].tolist()]
            said = {"silent": None, "alien": {"token_logprobs": [-30.0] * len(found)}}
            choice = {"logprobs": said.get(request.url.host, {"token_logprobs": found})}
            return httpx2.Response(200, content=json.dumps({"choices": [choice]}), request=request)

        monkeypatch.setattr("httpx2.Client", partial(httpx2.Client, transport=httpx2.MockTransport(respond)))
        return main([str(tiny_model), str(adapters[adapter]), *options.split()])

    return check


LAST = "as PEFT computes it"
MISTAKES: dict[str, tuple[dict[str, Change], set[str]]] = {
    "none": ({}, set()),
    "not applied": ({"mine": PeftModel.disable_adapter}, {"applied", LAST}),
    "alpha": ({"mine": lambda model: scaled(model, 3.0)}, {"scaled correctly", LAST}),
    "another": ({"mine": lambda model: model.set_adapter("other") or nullcontext()}, {"the right one", LAST}),
    "revision": ({"base": lambda model: scaled(model, 0.3)}, {"base untouched"}),
    "k_proj": ({"mine": without("k_proj")}, {"k_proj", LAST}),
    "two kinds": ({"mine": without("up_proj", "down_proj")}, {"up_proj", "down_proj", LAST}),
    "no numbers": ({"mine": lambda model: scaled(model, torch.nan)}, {LAST}),
    "faint": ({"mine": PeftModel.disable_adapter}, set()),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_of_a_server(mistake: str, check: Check):
    """An effect that is too small to tell is no proof: the exit code is 1, although nothing is wrong."""
    changes, wrong = MISTAKES[mistake]
    adapter = "faint" if mistake == "faint" else "mine"
    code = check(adapter, "server=http://sound/v1 served=mine json=found.json", **changes)
    found = json.loads(Path("found.json").read_text())
    assert wrong == {row["question"] for row in found["rows"] if row["right"] is False}
    assert (code, found["rightly"]) == {"none": (0, True), "faint": (1, None)}.get(mistake, (1, False))


@pytest.mark.parametrize(
    ("adapter", "options", "said"),
    [
        ("stranger", "", "was made for"),
        ("mine", "server=http://me:secret@sound/v1 served=mine", "password"),
        ("mine", "server=http://sound/v1 served=yours", "base, mine, other"),
        ("mine", "server=http://sound/v1 served=mine timeout=0", "timeout"),
        ("mine", "server=http://hangs/v1 served=mine timeout=7", "ReadTimeout: after 7; .*timeout=7"),
        ("mine", "server=http://silent/v1 served=mine", "no log-probabilities"),
        ("mine", "server=http://sound/v1", "served=NAME"),
        ("mine", "server=http://alien/v1 served=mine", "nats off"),
        ("mine", "server=http://hangs/v1 served=mine json=nowhere/found.json", "json=nowhere/found.json"),
        ("mine", "server=http://hangs/v1 served=mine json=.", "json=."),
    ],
)
def test_bad_input(adapter: str, options: str, said: str, check: Check, capsys: pytest.CaptureFixture[str]):
    assert check(adapter, options) == 2
    captured = capsys.readouterr()
    assert re.search(said, captured.err)
    assert "secret" not in captured.err + captured.out
