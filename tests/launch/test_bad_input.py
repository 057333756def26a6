"""Unfit runs and bad options, refused by the commands after a run in one line, with nothing touched."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from actors.storage.files import seal
from actors.storage.folders import mark
from actors.storage.layout import RUN
from launch import chat, export, push, samples, serve
from tests.trained_runs import write_trained

COMMANDS = {
    "export": (export.main, ["to=out"]),
    "push": (push.main, ["to=me/mine", "dry_run=true"]),
    "chat": (chat.main, []),
    "serve": (serve.main, ["port=48733"]),
    "samples": (samples.main, []),
}
"""Commands on a run, with good options. All but `samples` read the trained policy."""


@pytest.fixture(scope="module")
def trained(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_trained(tmp_path_factory.mktemp("refused") / "runs" / "mine", tiny_model)


@pytest.fixture
def run(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(trained, Path("runs", "mine"), symlinks=True)


def contents() -> dict[Path, str]:
    """Digests of all files here, and all folders."""
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "" for path in Path().rglob("*")}


def delete(name: str) -> Callable[[Path], None]:
    def prepare(run: Path) -> None:
        there = run / name
        there.unlink() if there.is_file() else shutil.rmtree(there)

    return prepare


def exchange_adapter(run: Path) -> None:
    file = run / "checkpoints" / "latest" / "adapter" / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-4] + b"1234")


def name_another_base(run: Path) -> None:
    checkpoint = (run / "checkpoints" / "latest").resolve()
    file = checkpoint / "adapter" / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "base_model_name_or_path": "someone/else"}))
    seal(checkpoint)


NO_RUN = [
    (delete(""), ("runs/mine", "config.yaml")),
    (delete("config.yaml"), ("runs/mine", "config.yaml")),
]
UNFIT = [
    (delete("checkpoints"), ("runs/mine has no checkpoint",)),
    (exchange_adapter, ("adapter/adapter_model.safetensors",)),
    (name_another_base, ("someone/else",)),
]
NO_SAMPLES = [(delete("samples/eval-final.jsonl"), ("samples/eval-final.jsonl",))]
CASES = [(command, *case) for command in COMMANDS for case in NO_RUN + (NO_SAMPLES if command == "samples" else UNFIT)]


@pytest.mark.parametrize(("command", "prepare", "said"), CASES)
def test_run_is_refused_in_one_line(
    command: str, prepare: Callable[[Path], None], said: tuple[str, ...], run: Path, refused: Callable[..., str]
) -> None:
    main, options = COMMANDS[command]
    prepare(run)
    before = contents()
    error = refused(main, ["runs/mine", *options])
    assert all(words in error for words in said)
    assert contents() == before


@pytest.mark.parametrize(
    ("command", "option"),
    [
        *(
            ("export", option)
            for option in ("type=f16", "checkpoint=../..", "to=taken", "to=runs/mine/x/y", "to=dangling")
        ),
        *(("push", option) for option in ("to=mine", "to=me/mi ne", "format=gguf")),
        *(("serve", option) for option in ("port=65536", "host=no.such.host.invalid")),
        ("samples", "limit=0"),
    ],
)
@pytest.mark.usefixtures("run")
def test_option_is_refused_in_one_line(command: str, option: str, refused: Callable[..., str]) -> None:
    Path("taken").mkdir()
    Path("dangling").symlink_to("nowhere")
    mark(Path("runs/mine"), RUN.kind)
    before = contents()
    main, options = COMMANDS[command]
    key, _, value = option.partition("=")
    kept = [other for other in options if not other.startswith(key)]
    assert value in refused(main, ["runs/mine", *kept, option])
    assert contents() == before
