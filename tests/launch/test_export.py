import errno
import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file

from conf.errors import BadInput
from conf.load import load
from launch import export
from launch.after import artifact, merged
from launch.after.trained import find_trained
from tests.trained_runs import write_model, write_trained


@pytest.fixture
def run(tiny_model: Path, tmp_path: Path) -> Path:
    return write_trained(tmp_path / "runs" / "mine", tiny_model)


@pytest.mark.parametrize(
    ("kind", "arguments", "file"),
    [
        ("llama", ["checkpoint=update-000004"], "exports/mine-update-000004-merged/model.safetensors"),
        ("llama", ["format=gguf"], "exports/mine-update-000004-q8_0/mine-update-000004-q8_0.gguf"),
        ("llama", ["format=adapter", "to=a/b"], "a/b/adapter_model.safetensors"),
        ("llama_untied", ["format=gguf", "type=f16"], "exports/mine-update-000004-f16/mine-update-000004-f16.gguf"),
        ("qwen2", ["format=gguf", "to=q"], "q/mine-update-000004-q8_0.gguf"),
        ("qwen3", ["format=gguf", "type=f16", "to=q"], "q/mine-update-000004-f16.gguf"),
    ],
)
def test_export_is_there_once_it_has_been_verified(
    kind: str, arguments: list[str], file: str, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tiny_model if kind == "llama" else write_model(tmp_path / kind, tiny_model, kind)
    run = write_trained(tmp_path / "runs" / "mine", model)
    assert export.main([str(run), *arguments]) == 0
    assert Path(file).is_file()
    said = capsys.readouterr().out
    assert "export and adapter" in said
    assert f"{Path(file).parent}: verified" in said
    learned, noise, off, away = json.loads((Path(file).parent / "export.json").read_text())["differences"]
    assert learned["mean"] > 0.1
    assert off["mean"] <= 1.5 * noise["mean"]
    assert away["mean"] > 2 * off["mean"]
    assert [path.name for path in Path(file).parent.parent.glob(".*")] == []


def test_merged_model_is_the_sum_rounded_up_or_down_and_else_the_base(run: Path, tiny_model: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    assert export.main([str(run), "to=out"]) == 0
    base, made = (load_file(folder / "model.safetensors") for folder in (tiny_model, Path("out")))
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
    loaded = AutoModelForCausalLM.from_pretrained("out")
    assert loaded.dtype == torch.bfloat16
    assert AutoTokenizer.from_pretrained("out").chat_template == AutoTokenizer.from_pretrained(tiny_model).chat_template


def test_export_that_is_not_what_was_trained_leaves_nothing(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = merged.Sum.__init__

    def wrong(self: merged.Sum, adapter: Path) -> None:
        original(self, adapter)
        self._scale *= 1.2

    monkeypatch.setattr(merged.Sum, "__init__", wrong)
    assert export.main([str(run), "to=place/out"]) == 1
    assert "differs from the adapter" in capsys.readouterr().out
    assert list(Path("place").iterdir()) == []


def test_changes_below_half_a_step_are_kept_on_average() -> None:
    base = torch.randn(1000, 100, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)
    change = 1e-3 * base.float().abs()  # a quarter of a step or less
    made = merged.rounded(base.float() + change, torch.bfloat16, torch.Generator().manual_seed(2))
    assert ((base.float() + change).to(torch.bfloat16) == base).all()
    assert (made.float() - base.float()).mean().item() == pytest.approx(change.mean().item(), rel=0.05)
    assert torch.equal(merged.rounded(base.float(), torch.bfloat16, torch.Generator()), base)


def test_what_rounding_would_lose_is_kept_whole(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_trained(tmp_path / "runs" / "mine", tiny_model, std=2e-4)
    assert export.main([str(run), "to=out"]) == 1
    assert "lost where the export's rounding" in capsys.readouterr().out
    assert export.main([str(run), "to=out", "type=float32"]) == 0
    assert {weight.dtype for weight in load_file("out/model.safetensors").values()} == {torch.float32}
    assert json.loads(Path("out/config.json").read_text())["dtype"] == "float32"


def test_stop_tokens_of_the_run_end_what_the_merged_model_generates(tiny_model: Path, tmp_path: Path) -> None:
    run = write_trained(tmp_path / "runs" / "mine", tiny_model, settings=("model.stop_tokens=['<|endoftext|>']",))
    assert export.main([str(run), "to=out"]) == 0
    assert json.loads((Path("out") / "generation_config.json").read_text())["eos_token_id"] == [2, 0]


def test_gguf_has_vocabulary_template_and_sizes(run: Path, tiny_model: Path) -> None:
    import gguf
    from transformers import AutoTokenizer

    assert export.main([str(run), "format=gguf", "to=out"]) == 0
    fields = gguf.GGUFReader(next(Path("out").glob("*.gguf"))).fields
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    assert fields["tokenizer.ggml.pre"].contents() == "gpt-2"
    assert fields["tokenizer.ggml.tokens"].contents() == [
        token or f"[PAD{number}]" for number, token in enumerate(tokenizer.convert_ids_to_tokens(range(512)))
    ]
    assert fields["tokenizer.chat_template"].contents() == tokenizer.chat_template
    assert fields["tokenizer.ggml.eos_token_id"].contents() == tokenizer.eos_token_id
    assert fields["llama.attention.head_count_kv"].contents() == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["to=x"], "folder"),
        (["runs/mine", "runs/mine"], "runs/mine"),
        (["runs/mine", "fromat=gguf"], "fromat=gguf"),
        (["runs/mine", "format=onnx"], "format=onnx"),
        (["runs/mine", "type=f16"], "type=f16"),
        (["runs/mine", "checkpoint=best"], "checkpoint=best"),
        (["runs/mine", "checkpoint=../.."], "checkpoint=../.."),
        (["runs/mine", "to=taken"], "taken is there already"),
    ],
)
def test_bad_input_is_one_line_and_touches_nothing(
    arguments: list[str], said: str, run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.parent.parent)
    Path("taken").mkdir()
    before = sorted(Path().rglob("*"))
    assert export.main(arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert sorted(Path().rglob("*")) == before


def test_what_gguf_could_not_verify_is_refused(
    run: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = shutil.copytree(tiny_model, tmp_path / "scaled")
    config = json.loads((model / "config.json").read_text())
    config["rope_parameters"] |= {"rope_type": "linear", "factor": 2.0}
    (model / "config.json").write_text(json.dumps(config))
    scaled = write_trained(tmp_path / "runs" / "scaled", model)
    assert export.main([str(scaled), "format=gguf"]) == 2
    assert "scaled rotary positions" in capsys.readouterr().err
    assert not Path("exports").exists()


def test_rules_younger_than_the_run_do_not_matter(run: Path) -> None:
    record = yaml.safe_load((run / "config.yaml").read_text())
    record["eval"] |= {"temperature": 0.0, "n": 2}  # which no run may be begun with today
    (run / "config.yaml").write_text(yaml.safe_dump(record))
    with pytest.raises(BadInput, match="all samples would be the same"):
        load([f"adapter={run}/checkpoints/latest/adapter"])
    assert find_trained(run).config.eval.n == 2


@pytest.mark.parametrize("arguments", [[], ["type=float32"], ["format=gguf"], ["format=gguf", "type=f16"]])
def test_room_is_counted_before_anything_is_written(
    arguments: list[str], run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    counted: list[int] = []
    count = artifact.needed_bytes
    monkeypatch.setattr(artifact, "needed_bytes", lambda *given: counted.append(count(*given)) or counted[0])
    assert export.main([str(run), "to=place/out", *arguments]) == 0
    size = sum(file.stat().st_size for file in Path("place/out").iterdir() if file.name != export.RECORD)
    assert size <= counted[0] <= 1.2 * size + 2**20  # the tiny model is mostly tokens
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, counted[0] - 1))  # type: ignore[attr-defined]
    capsys.readouterr()
    assert export.main([str(run), "to=another/out", *arguments]) == 2
    assert f"{counted[0] / 1e9:.2f} GB" in capsys.readouterr().err
    assert not Path("another").exists()


@pytest.mark.parametrize("fault", [OSError(errno.ENOSPC, "No space left on device"), SafetensorError("os error 28")])
def test_disk_that_fills_meanwhile_leaves_nothing(
    fault: Exception, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(_: object, file: Path, **__: object) -> None:
        file.write_bytes(b"half")
        raise fault

    monkeypatch.setattr(merged, "save_file", full)
    assert export.main([str(run), "to=place/out"]) == 2
    assert "make room" in capsys.readouterr().err
    assert list(Path("place").iterdir()) == []
