import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import constants

from microbudget_rl.launch import push
from microbudget_rl.launch.trained.policy import Trained
from tests.http_server import in_full
from tests.hub import TOKEN, Hub, running_hub
from tests.run_folders import write_run
from tests.trained_runs import SHOWN, write_trained

PUBLISHED = """.gitattributes README.md adapter_config.json adapter_model.safetensors
    training/config.yaml training/metrics.jsonl training/report.html"""
SAID = "1 · accuracy|20.8|95 % interval|1 × A40|9.8|0.08 at 0.5 per hour|one seed|me/mine|began with 1 few-shot example"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running_hub() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield hub


@pytest.fixture(scope="module")
def finished(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with an evaluation before and after."""
    folder = tmp_path_factory.mktemp("push")
    settings = ("run.on_end='curl https://pod.example/stop?key=SECRET'", "budget.price_per_hour=0.5", SHOWN)
    run = write_trained(folder / "runs" / "mine", tiny_model, settings=settings, rows=24)
    other = write_run(folder / "made-up", before=1, after=5, cost=0.08, hardware="1 × A40")
    for name in ("metrics.jsonl", "summary.json"):
        shutil.copyfile(other / name, run / name)
    command = f"python launch/run.py data.source=file:{folder}/runs/sums.jsonl model.path={tiny_model}"
    (run / "origin.json").write_text(json.dumps({"command": command}))
    return run


@pytest.fixture
def run(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(finished, tmp_path / "runs" / "mine", symlinks=True)


def metadata(hub: Hub) -> Any:
    """What the card in the repository tells the hub."""
    return yaml.safe_load(hub.files["me/mine"]["README.md"].decode().split("---\n")[1])


def test_repository_gets_adapter_card_and_training_and_nothing_private(
    run: Path, finished: Path, tiny_model: Path, hub: Hub, capsys: pytest.CaptureFixture[str]
):
    assert push.main([str(run), "to=me/mine"]) == 0
    files = hub.files["me/mine"]
    assert files.keys() == {*PUBLISHED.split()}
    adapter = run / "checkpoints" / "update-000004" / "adapter" / "adapter_model.safetensors"
    assert files["adapter_model.safetensors"] == adapter.read_bytes()
    base = Path(json.loads((adapter.parent / "adapter_config.json").read_text())["base_model_name_or_path"])
    assert base.is_absolute()
    assert json.loads(files["adapter_config.json"])["base_model_name_or_path"] == base.name
    assert files["training/metrics.jsonl"] == (run / "metrics.jsonl").read_bytes()
    assert hub.created[0]["visibility"] == "private"
    assert hub.commits == ["mine, update-000004, as adapter"]
    stated = metadata(hub)
    assert stated["library_name"] == "peft"
    assert "base_model" not in stated  # a folder of this machine is none of the hub's
    body = files["README.md"].decode().split("---\n", 2)[2]
    for said in SAID.split("|"):
        assert said in body
    for secret in ("SECRET", TOKEN, str(finished.parent), str(tiny_model.parent)):
        assert secret.encode() not in b"".join(files.values())
    assert TOKEN not in capsys.readouterr().out
    assert not any(TOKEN.encode() in file.read_bytes() for file in run.rglob("*") if file.is_file())
    settings = yaml.safe_load(files["training/config.yaml"])
    assert settings["data"]["source"] == "file:sums.jsonl"
    assert "on_end" not in settings["run"]
    assert settings["lora"]["rank"] == 4


def test_card_of_another_version_says_whose_report_it_has(run: Path, hub: Hub):
    summary = json.loads((run / "summary.json").read_text())
    (run / "summary.json").write_text(json.dumps(summary | {"result": {"update": 40, "why": "the last"}}))
    assert push.main([str(run), "to=me/mine", "checkpoint=update-000004", "private=false"]) == 0
    assert hub.created[0]["visibility"] == "public"
    assert "of update 4. The report is on the run's result, update 40." in hub.files["me/mine"]["README.md"].decode()


@pytest.mark.parametrize(
    ("key", "value", "published"),
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
def test_paths_become_names(key: str, value: object, published: object):
    Path("clients/acme/model").mkdir(parents=True)
    section, _, name = key.rpartition(".")
    assert push.public({key: value}) == {key: published}
    assert push.public({section: {name: value}}) == {section: {name: published}}


def test_merged_model_is_verified_first(
    run: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    with monkeypatch.context() as patched:
        patched.setattr("microbudget_rl.launch.trained.merged.write_verified", lambda *_: "the export differs")
        assert push.main([str(run), "to=me/mine", "format=merged"]) == 1
    assert "differs" in capsys.readouterr().out
    assert not hub.files
    assert push.main([str(run), "to=me/mine", "format=merged"]) == 0
    assert "export and adapter" in capsys.readouterr().out
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= hub.files["me/mine"].keys()
    assert metadata(hub)["library_name"] == "transformers"


def test_dry_run_shows_all_and_needs_nothing(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert push.main([str(run), "to=me/mine", "dry_run=true"]) == 0
    said = capsys.readouterr().out
    assert "adapter_model.safetensors" in said
    assert "library_name: peft" in said


def test_model_of_the_hub_is_named_with_its_commit(run: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Trained, "base_name", "someone/base")
    monkeypatch.setattr(push, "name_on_hub", lambda model: ("someone/base", "a" * 40))
    assert push.main([str(run), "to=me/mine"]) == 0
    wanted = {"base_model": "someone/base", "base_model_relation": "adapter"}
    assert wanted.items() <= metadata(hub).items()
    body = hub.files["me/mine"]["README.md"].decode()
    pin = "a" * 40
    for said in (f'"revision": "{pin}"', f"vllm serve someone/base --revision {pin}"):
        assert said in body


def test_files_in_the_hub_are_replaced_only_when_asked_and_before_anything_is_written(
    run: Path, hub: Hub, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
):
    hub.files["me/mine"] = {".gitattributes": b""}  # as after an upload that broke off
    assert push.main([str(run), "to=me/mine"]) == 0
    before = dict(hub.files["me/mine"])
    with monkeypatch.context() as patched:
        patched.setattr("microbudget_rl.launch.trained.merged.write_verified", None)
        assert "overwrite=true" in refused(push.main, [str(run), "to=me/mine", "format=merged"])
        patched.setenv("HF_TOKEN", "hf_wrong")
        assert "HF_TOKEN" in refused(push.main, [str(run), "to=me/mine", "format=merged", "overwrite=true"])
    assert hub.files["me/mine"] == before
    assert push.main([str(run), "to=me/mine", "overwrite=true"]) == 0
    assert len(hub.commits) == 2


def test_nothing_is_sent_without_a_good_token_or_of_a_run_that_has_not_ended(
    run: Path, hub: Hub, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
):
    for token, said in (("", "HF_TOKEN"), ("hf_wrong", "HF_TOKEN"), ("hf_ключ", "to=me/mine")):
        monkeypatch.setenv("HF_TOKEN", token)
        assert said in refused(push.main, [str(run), "to=me/mine"])
    (run / "summary.json").write_text(json.dumps({"status": "interrupted"}))
    assert str(run) in refused(push.main, [str(run), "to=me/mine"])
    assert not hub.files


def test_page_of_the_hub_does_not_show_the_token(run: Path, hub: Hub, refused: Callable[..., str]):
    pages = {
        "HTTP 507": in_full(f"<html>{TOKEN}</html>".encode(), 507, **{"Content-Type": "text/html"}),
        "no room": in_full({"error": f"no room left for {TOKEN}"}, 507),
    }
    for said, page in pages.items():
        hub.page = page
        error = refused(push.main, [str(run), "to=me/mine"])
        assert said in error
        assert TOKEN not in error
        assert "html" not in error


@pytest.mark.parametrize(
    ("kind", "at", "cause"),
    [("away", "", "Connect"), ("silent", "commit/main", "Timeout"), ("nonsense", "create", "Error")],
)
def test_hub_away_silent_or_unreadable(
    kind: str, at: str, cause: str, run: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, refused: Callable[..., str]
):
    monkeypatch.setattr(push, "SILENCE_S", 0.3)
    if kind == "away":
        monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    setattr(hub, kind, at)
    error = refused(push.main, [str(run), "to=me/mine"])
    assert "to=me/mine" in error
    assert cause in error
    assert not hub.commits
