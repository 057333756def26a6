"""The check of an adapter against a server, which computes with transformers and PEFT and makes a mistake."""

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from microbudget_rl.launch.check_adapter import main
from microbudget_rl.learner.model.adapter import scaled


class Server(ThreadingHTTPServer):
    """Serves `base` and, with some mistake, `mine`; `other` is a second adapter. mistakes: a context for each model."""

    mistakes: dict[str, Callable[[], Any]]

    def __init__(self, model: Any) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.model, self.turn = model, threading.Lock()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def logprobs(self, name: str, ids: list[int]) -> list[float | None]:
        with self.turn, torch.no_grad():
            self.model.set_adapter("other" if name == "other" else "default")
            with self.mistakes[name]():
                logits = self.model(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
            self.model.set_adapter("default")
        return [None, *logits.gather(1, torch.tensor(ids[1:])[:, None])[:, 0].tolist()]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        if self.path.startswith("/hangs"):
            time.sleep(5)
        self.reply(
            {"data": [{"id": "base", "parent": None}, *({"id": n, "parent": "base"} for n in ("mine", "other"))]}
        )

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        assert asked["logprobs"] <= 5
        alien = [-30.0] * len(asked["prompt"])
        found = alien if self.path.startswith("/alien") else self.server.logprobs(asked["model"], asked["prompt"])
        given = {"token_logprobs": found}
        self.reply({"choices": [{"logprobs": None if self.path.startswith("/silent") else given}]})

    def reply(self, content: Any) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture(scope="module")
def adapters(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Adapters of one shape, as PEFT saves them. That of DoRA is another kind."""
    folders = {}
    for seed, name in enumerate(("mine", "other", "dora")):
        torch.manual_seed(seed)
        lora = LoraConfig(
            task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules="all-linear", use_dora=name == "dora"
        )
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model), lora)
        for weight_name, weight in model.named_parameters():
            if "lora_B" in weight_name:
                torch.nn.init.normal_(weight, std=0.1)
        folders[name] = tmp_path_factory.mktemp(name)
        model.save_pretrained(folders[name])
    return folders


@pytest.fixture(scope="module")
def served(tiny_model: Path, adapters: dict[str, Path]) -> Iterator[Server]:
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16)
    model = PeftModel.from_pretrained(base, str(adapters["mine"]), autocast_adapter_dtype=False)
    model.load_adapter(str(adapters["other"]), "other", autocast_adapter_dtype=False)
    with Server(model.eval()) as server:
        yield server
        server.shutdown()


def check(model: Path, adapter: Path, *options: str) -> tuple[int, dict[str, bool | None]]:
    """Return the exit code and the answers."""
    code = main([str(model), str(adapter), *options, "json=found.json"])
    return code, {row["question"]: row["right"] for row in json.loads(Path("found.json").read_text())["rows"]}


@pytest.mark.parametrize(
    ("mistake", "wrong"),
    [
        ("none", set()),
        ("not applied", {"applied", "as PEFT computes it"}),
        ("alpha", {"scaled rightly", "as PEFT computes it"}),
        ("another", {"the right one", "as PEFT computes it"}),
        ("revision", {"base untouched"}),
        ("k_proj", {"k_proj", "as PEFT computes it"}),
        ("up_proj down_proj", {"up_proj", "down_proj", "as PEFT computes it"}),
    ],
)
def test_mistakes_of_a_server(
    mistake: str, wrong: set[str], served: Server, tiny_model: Path, adapters: dict[str, Path]
) -> None:
    model = served.model
    modules = {name for name, _ in model.named_modules() if name.endswith(tuple(mistake.split()))}
    mine: dict[str, Callable[[], Any]] = {
        "not applied": model.disable_adapter,
        "alpha": lambda: scaled(model, 3.0),
        "none": nullcontext,
        "another": nullcontext,
        "revision": nullcontext,
    }
    lacking = partial(scaled, model, 0.0, modules)
    served.mistakes = {"base": model.disable_adapter, "mine": mine.get(mistake, lacking), "other": nullcontext}
    if mistake == "revision":
        served.mistakes["base"] = lambda: scaled(model, 0.3)
    name = "other" if mistake == "another" else "mine"
    code, answers = check(tiny_model, adapters["mine"], f"server={served.address}", f"served={name}")
    assert code == bool(wrong)
    assert wrong == {question for question, right in answers.items() if right is False}


@pytest.mark.parametrize(
    ("adapter", "options", "said"),
    [
        ("dora", (), "use_dora"),
        ("stranger", (), "was made for"),
        ("mine", ("server=http://127.0.0.1:9/v1", "served=mine"), "ConnectError"),
        ("mine", ("server=http://me:secret@127.0.0.1:9/v1", "served=mine"), "password"),
        ("mine", ("server={root}/v1", "served=yours"), "base, mine, other"),
        ("mine", ("server={root}/v1", "served=mine", "timeout=0"), "timeout"),
        ("mine", ("server={root}/hangs", "served=mine", "timeout=1"), "timeout than 1 s"),
        ("mine", ("server={root}/silent", "served=mine"), "no log-probabilities"),
        ("mine", ("server={root}/v1",), "served=NAME"),
        ("mine", ("server={root}/alien", "served=mine"), "nats off"),
    ],
)
def test_bad_input(
    adapter: str,
    options: tuple[str, ...],
    said: str,
    served: Server,
    tiny_model: Path,
    adapters: dict[str, Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = Path(shutil.copytree(adapters[adapter.replace("stranger", "mine")], "adapter"))
    if adapter == "stranger":
        stated = json.loads((folder / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps(stated | {"base_model_name_or_path": "another/model"}))
    root = served.address.removesuffix("/v1")
    assert main([str(tiny_model), str(folder), *(option.format(root=root) for option in options)]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert "secret" not in captured.err + captured.out
