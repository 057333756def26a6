import errno
import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from microbudget_rl.actors.storage.files import seal
from microbudget_rl.actors.storage.folders import mark
from microbudget_rl.launch import export
from microbudget_rl.launch.trained import merged
from tests.malformed.conftest import files
from tests.trained_runs import SHOWN, write_trained

pytestmark = pytest.mark.long


def test_export_appears_verified_as_the_rounded_sum_and_else_the_base(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    run = write_trained(tmp_path / "runs" / "mine", tiny_model, settings=(SHOWN,))
    measured: list[float] = []
    fault = merged.fault
    monkeypatch.setattr(merged, "fault", lambda *given: measured.extend(given) or fault(*given))
    assert export.main([str(run), "checkpoint=update-000004"]) == 0
    folder = Path("exports/mine-update-000004-merged")
    learned, noise, off, away = measured
    assert learned > 0.1
    assert off <= 1.5 * noise
    assert away > 2 * off
    assert [path.name for path in folder.parent.glob(".*")] == []
    assert len({path.stat().st_mode for path in folder.iterdir()}) == 1
    *_, loaded, reminder = capsys.readouterr().out.splitlines()
    assert "1 few-shot example" in reminder
    assert str(folder) in loaded
    base, made = (load_file(place / "model.safetensors") for place in (tiny_model, folder))
    changes = load_file(run / "checkpoints" / "latest" / "adapter" / "adapter_model.safetensors")
    changed = {name for name, weight in made.items() if not torch.equal(weight, base[name])}
    assert changed == {
        name.removeprefix("base_model.model.").replace(".lora_A", "") for name in changes if "lora_A" in name
    }
    name = "model.layers.1.mlp.down_proj"
    a, b = (changes[f"base_model.model.{name}.lora_{side}.weight"] for side in "AB")
    exact = base[f"{name}.weight"].double() + 2.0 * (b.double() @ a.double())
    error = made[f"{name}.weight"].double() - exact
    step = torch.exp2(torch.frexp(exact).exponent.double() - 8)  # of bfloat16's eight bits
    assert (error.abs() < 1.001 * step).all()
    assert (error / step).mean().abs() < 4 * (error / step).std() / error.numel() ** 0.5
    assert AutoModelForCausalLM.from_pretrained(folder).dtype == torch.bfloat16
    own, copied = (AutoTokenizer.from_pretrained(place).chat_template for place in (tiny_model, folder))
    assert own == copied


def test_export_that_differs_leaves_nothing(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    rounded = merged.rounded
    monkeypatch.setattr(merged, "rounded", lambda weight, *how: rounded(1.1 * weight, *how))
    assert export.main([str(run), "to=place/out"]) == 1
    assert "differs from the adapter" in capsys.readouterr().out
    assert "differs" in merged.fault(0.4, 0.02, math.nan, 0.4)
    assert list(Path("place").iterdir()) == []


def test_float32_keeps_what_rounding_loses(tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    stop = "model.stop_tokens=['<|endoftext|>']"
    run = write_trained(tmp_path / "runs" / "mine", tiny_model, std=2e-4, settings=(stop,))
    assert export.main([str(run), "to=out"]) == 1
    assert "type=float32" in capsys.readouterr().out
    assert export.main([str(run), "to=out", "type=float32"]) == 0
    assert {weight.dtype for weight in load_file("out/model.safetensors").values()} == {torch.float32}
    assert json.loads(Path("out/config.json").read_text())["dtype"] == "float32"
    assert json.loads(Path("out/generation_config.json").read_text())["eos_token_id"] == [2, 0]


def test_full_disk_leaves_nothing(run: Path, monkeypatch: pytest.MonkeyPatch, refused: Callable[..., str]):
    def full(_: object, file: Path, **__: object) -> None:
        file.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(merged, "save_file", full)
    assert "make room" in refused(export.main, [str(run), "to=place/out"])
    assert list(Path("place").iterdir()) == []


def exchange_adapter(checkpoint: Path) -> None:
    file = checkpoint / "adapter" / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-4] + b"1234")


def name_another_base(checkpoint: Path) -> None:
    file = checkpoint / "adapter" / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "base_model_name_or_path": "someone/else"}))
    seal(checkpoint)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda checkpoint: shutil.rmtree(checkpoint.parent), "has no checkpoint"),
        (exchange_adapter, "adapter/adapter_model.safetensors"),
        (name_another_base, "someone/else"),
    ],
)
def test_run_without_a_usable_adapter_is_refused(
    damage: Callable[[Path], None], said: str, run: Path, refused: Callable[..., str]
):
    damage(run / "checkpoints" / "update-000004")
    before = files(Path())
    assert said in refused(export.main, [str(run), "to=out"])
    assert files(Path()) == before


@pytest.mark.parametrize("option", ["to=taken", "to=runs/mine/x/y", "to=dangling"])
def test_place_that_is_not_possible_is_refused(option: str, run: Path, refused: Callable[..., str]):
    Path("taken").mkdir()
    Path("dangling").symlink_to("nowhere")
    mark(run, "run")
    before = files(Path())
    assert option.partition("=")[2] in refused(export.main, [str(run), option])
    assert files(Path()) == before


@pytest.mark.parametrize(("key", "value"), [("path", "/no/such/model"), ("pin", "0" * 40)])
def test_run_whose_base_model_is_lost_or_exchanged_is_refused(
    key: str, value: str, run: Path, refused: Callable[..., str]
):
    file = run / "config.yaml"
    file.write_text(re.sub(rf"^  {key}: .*$", f"  {key}: '{value}'", file.read_text(), flags=re.MULTILINE))
    assert f"model.{key}={value}" in refused(export.main, [str(run), "to=out"])
