"""The check of an adapter against a server, which computes with transformers and PEFT and makes a mistake."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from microbudget_rl.launch.check_adapter import main
from microbudget_rl.learner.model.adapter import scaled
from tests.trained_runs import save_adapter

Change = Callable[[Any], Any]
"""From a model to the context in which it makes a mistake."""

Check = Callable[[str, str], int]


def unadapted(model: Any) -> Any:
    return model.disable_adapter()


def without(*kinds: str) -> Change:
    return lambda model: scaled(model, 0.0, {name for name, _ in model.named_modules() if name.endswith(kinds)})


class Handler(BaseHTTPRequestHandler):
    """Serves `base` and `mine` with their mistakes, and `other`, a second adapter."""

    model: Any
    mistakes: dict[str, Change]
    turn = threading.Lock()

    def do_GET(self) -> None:
        time.sleep(5 if self.path.startswith("/hangs") else 0)
        self.reply({"data": [{"id": "base"}, *({"id": name, "parent": "base"} for name in ("mine", "other"))]})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        assert asked["logprobs"] <= 5
        ids, name = asked["prompt"], asked["model"]
        with self.turn, torch.no_grad():
            self.model.set_adapter("other" if name == "other" else "default")
            with self.mistakes.get(name, nullcontext)(self.model):
                found = self.model(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
            self.model.set_adapter("default")
        logprobs = [None, *found.gather(1, torch.tensor(ids[1:])[:, None])[:, 0].tolist()]
        if self.path.startswith("/alien"):
            logprobs = [-30.0] * len(ids)
        given = None if self.path.startswith("/silent") else {"token_logprobs": logprobs}
        self.reply({"choices": [{"logprobs": given}]})

    def reply(self, content: Any) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture(scope="module")
def adapters(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Adapters as PEFT saves them. That of DoRA is another kind, and the stranger's base is another model."""
    folders = {}
    for seed, name in enumerate(("mine", "other", "faint", "stranger", "dora")):
        std, dora = 1e-6 if name == "faint" else 0.1, name == "dora"
        folders[name] = save_adapter(tmp_path_factory.mktemp(name), tiny_model, std, seed, use_dora=dora)
    stated = folders["stranger"] / "adapter_config.json"
    stated.write_text(stated.read_text().replace(str(tiny_model), "another/model"))
    return folders


@pytest.fixture(scope="module")
def server(tiny_model: Path, adapters: dict[str, Path]) -> Iterator[str]:
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16)
    model = PeftModel.from_pretrained(base, str(adapters["mine"]), autocast_adapter_dtype=False)
    model.load_adapter(str(adapters["other"]), "other", autocast_adapter_dtype=False)
    Handler.model, Handler.mistakes = model.eval(), {"base": unadapted}
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()


@pytest.fixture
def check(server: str, tiny_model: Path, adapters: dict[str, Path]) -> Check:
    """Carries out the command, with an adapter and options."""
    return lambda name, said: main([str(tiny_model), str(adapters[name]), *said.format(root=server).split()])


LAST = "as PEFT computes it"
MISTAKES: dict[str, tuple[dict[str, Change], set[str]]] = {
    "none": ({}, set()),
    "not applied": ({"mine": unadapted}, {"applied", LAST}),
    "alpha": ({"mine": lambda model: scaled(model, 3.0)}, {"scaled rightly", LAST}),
    "another": ({"mine": lambda model: model.set_adapter("other") or nullcontext()}, {"the right one", LAST}),
    "revision": ({"base": lambda model: scaled(model, 0.3)}, {"base untouched"}),
    "k_proj": ({"mine": without("k_proj")}, {"k_proj", LAST}),
    "two kinds": ({"mine": without("up_proj", "down_proj")}, {"up_proj", "down_proj", LAST}),
    "no numbers": ({"mine": lambda model: scaled(model, torch.nan)}, {LAST}),
    "faint": ({"mine": unadapted}, set()),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_of_a_server(mistake: str, check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    """An effect that is too small to tell is no proof: the exit code is 1, although nothing is wrong."""
    changes, wrong = MISTAKES[mistake]
    monkeypatch.setattr(Handler, "mistakes", {"base": unadapted, **changes})
    code = check("faint" if mistake == "faint" else "mine", "server={root}/v1 served=mine json=found.json")
    found = json.loads(Path("found.json").read_text())
    assert wrong == {row["question"] for row in found["rows"] if row["right"] is False}
    assert (code, found["rightly"]) == {"none": (0, True), "faint": (1, None)}.get(mistake, (1, False))


@pytest.mark.parametrize(
    ("adapter", "options", "said"),
    [
        ("dora", "", "use_dora"),
        ("stranger", "", "was made for"),
        ("mine", "server=http://127.0.0.1:9/v1 served=mine", "ConnectError"),
        ("mine", "server=http://me:secret@127.0.0.1:9/v1 served=mine", "password"),
        ("mine", "server={root}/v1 served=yours", "base, mine, other"),
        ("mine", "server={root}/v1 served=mine timeout=0", "timeout"),
        ("mine", "server={root}/hangs served=mine timeout=1", "timeout than 1 s"),
        ("mine", "server={root}/silent served=mine", "no log-probabilities"),
        ("mine", "server={root}/v1", "served=NAME"),
        ("mine", "server={root}/alien served=mine", "nats off"),
    ],
)
def test_bad_input(adapter: str, options: str, said: str, check: Check, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(adapter, options) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert "secret" not in captured.err + captured.out
