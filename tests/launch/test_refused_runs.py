"""What the commands after a run refuse about the run itself: in one line, with nothing touched."""

import errno
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from actors.storage.files import seal
from launch import chat, export, push, samples, serve
from tests.trained_runs import write_trained

COMMANDS = {
    "export": (export.main, ["to=out"]),
    "push": (push.main, ["to=me/mine", "dry_run=true"]),
    "chat": (chat.main, []),
    "serve": (serve.main, ["port=48733"]),
}
"""Those that read the trained policy, with options that are right."""


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


def remove(run: Path) -> None:
    shutil.rmtree(run)


def forget_settings(run: Path) -> None:
    (run / "config.yaml").unlink()


def delete_checkpoints(run: Path) -> None:
    shutil.rmtree(run / "checkpoints")


def exchange_adapter(run: Path) -> None:
    file = run / "checkpoints" / "latest" / "adapter" / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-4] + b"1234")


def name_another_base(run: Path) -> None:
    checkpoint = (run / "checkpoints" / "latest").resolve()
    file = checkpoint / "adapter" / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "base_model_name_or_path": "someone/else"}))
    seal(checkpoint)


def lose_model(run: Path) -> None:
    settings = run / "config.yaml"
    lines = settings.read_text().splitlines()
    settings.write_text("\n".join("  path: /no/such/model" if line.startswith("  path: ") else line for line in lines))


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (remove, "there is no folder runs/mine: name that of a run"),
        (forget_settings, "runs/mine is not the folder of a run: name one that has a config.yaml"),
        (delete_checkpoints, "the run in runs/mine has no checkpoint yet: let it go on until it has one"),
        (exchange_adapter, "is not as the run has written it (adapter/adapter_model.safetensors"),
        (name_another_base, "was made for someone/else"),
        (lose_model, "model.path=/no/such/model: no such folder"),
    ],
)
@pytest.mark.parametrize("command", COMMANDS)
def test_run_is_refused_in_one_line(
    command: str, prepare: Callable[[Path], None], said: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main, options = COMMANDS[command]
    prepare(run)
    before = contents()
    assert main(["runs/mine", *options]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert contents() == before


@pytest.mark.parametrize("prepare", [remove, forget_settings])
def test_samples_refuses_what_is_no_run(
    prepare: Callable[[Path], None], run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(run)
    before = contents()
    assert samples.main(["runs/mine"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert contents() == before


def test_export_goes_nowhere_where_it_cannot_write(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    before = contents()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", refuse)
        assert export.main(["runs/mine", "to=there/mine"]) == 2
    assert export.main(["runs/mine", f"to={'x' * 300}"]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert errors[0] == ("export.py: to=there/mine: cannot be written to (Read-only file system); name another folder")
    assert "cannot be written to (File name too long)" in errors[1]
    assert len(errors) == 2
    assert contents() == before
