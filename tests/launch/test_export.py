import errno
import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from microbudget_rl.actors.storage.files import seal
from microbudget_rl.actors.storage.folders import mark
from microbudget_rl.launch import export
from microbudget_rl.launch.trained import card, merged
from microbudget_rl.launch.trained.policy import Trained
from tests.malformed.conftest import files
from tests.run_folders import write_run
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
    assert len({path.stat().st_mode for path in folder.glob("*.*")}) == 1
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


SAID = 'accuracy|20.8|95 % interval|1 × A40|9.8|0.08 at 0.5 per hour|one seed|"mine"|began with 1 few-shot example'


def test_adapter_is_exported_with_card_and_training_and_nothing_private(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    private = ("run.on_end='curl https://pod.example/stop?key=SECRET'", "checkpoint.copy='cp -r SECRET .'")
    settings = (*private, "budget.price_per_hour=0.5", SHOWN)
    run = write_trained(tmp_path / "runs" / "mine", tiny_model, settings=settings, rows=24)
    other = write_run(tmp_path / "made-up", before=1, after=5, cost=0.08, hardware="1 × A40")
    for name in ("metrics.jsonl", "summary.json"):
        shutil.copyfile(other / name, run / name)
    source = f"file:{run.parent}/sums.jsonl"
    origin = {"command": f"python launch/run.py data.source={source} model.path={tiny_model}"}
    (run / "origin.json").write_text(json.dumps(origin))
    assert export.main([str(run), "to=mine", "type=adapter"]) == 0
    training = {"config.yaml", "metrics.jsonl", "report.html"}
    assert {path.name for path in Path("mine/training").iterdir()} == training
    own = {"README.md", "adapter_config.json", "adapter_model.safetensors", "training"}
    assert {path.name for path in Path("mine").iterdir()} == own
    adapter = run / "checkpoints" / "update-000004" / "adapter"
    assert Path("mine/adapter_model.safetensors").read_bytes() == (adapter / "adapter_model.safetensors").read_bytes()
    assert Path("mine/training/metrics.jsonl").read_bytes() == (run / "metrics.jsonl").read_bytes()
    base = Path(json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"])
    assert base.is_absolute()
    assert json.loads(Path("mine/adapter_config.json").read_text())["base_model_name_or_path"] == base.name
    _, about, body = Path("mine/README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(about)["library_name"] == "peft"
    assert "base_model" not in yaml.safe_load(about)  # a folder of this machine is none of the hub's
    for said in SAID.split("|"):
        assert said in body
    for secret in ("SECRET", str(tmp_path), str(tiny_model.parent)):
        assert not [path for path in Path("mine").rglob("*.*") if secret.encode() in path.read_bytes()]
    recipe = yaml.safe_load(Path("mine/training/config.yaml").read_text())
    assert (recipe["data"]["source"], recipe["lora"]["rank"]) == ("file:sums.jsonl", 4)
    monkeypatch.setattr(Trained, "base_name", "someone/base")
    monkeypatch.setattr(card, "name_on_hub", lambda model: ("someone/base", "a" * 40))
    summary = json.loads((run / "summary.json").read_text())
    (run / "summary.json").write_text(json.dumps(summary | {"result": {"update": 40, "why": "the last"}}))
    assert export.main([str(run), "to=other", "type=adapter", "checkpoint=update-000004"]) == 0
    _, about, body = Path("other/README.md").read_text().split("---\n", 2)
    wanted = {"base_model": "someone/base", "base_model_relation": "adapter"}
    assert wanted.items() <= yaml.safe_load(about).items()
    pin = "a" * 40
    for said in (f'"revision": "{pin}"', f"vllm serve someone/base --revision {pin}", "of update 4.", "update 40."):
        assert said in body


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("setting", "file:../data/sums.jsonl", "file:sums.jsonl"),
        ("setting", "/home/me/models/tiny", "tiny"),
        ("setting", "/no_think {problem}", "/no_think {problem}"),
        ("setting", ["/mnt/rewards.py:reward", 1], ["rewards.py:reward", 1]),
        ("data.template", "~ {problem}/x", "~ {problem}/x"),
        *(("model.path", path, "model") for path in ("clients/acme/model", "~/acme/model", "/home/my acme/model")),
        ("model.path", "owner/name", "owner/name"),
    ],
)
def test_paths_become_names(key: str, value: object, shown: object):
    Path("clients/acme/model").mkdir(parents=True)
    section, _, name = key.rpartition(".")
    assert card.public({key: value}) == {key: shown}
    assert card.public({section: {name: value}}) == {section: {name: shown}}
