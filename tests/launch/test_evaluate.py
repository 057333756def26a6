"""Everything of an evaluation that needs no engine: what is refused, what may go on, what is written."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from actors.durable import replace_text
from actors.messages import AdapterRef, Group, Sample
from actors.transcript import Transcript
from conf.errors import BadInput
from conf.load import load
from conf.schema import Config
from launch import evaluate
from launch.evaluate import Evaluation, claim, conclude, prepare, protocol_of, record
from launch.machine import detect
from launch.resume import claim as claim_run
from launch.resume import open_folder
from rewards import problems
from rewards.problems import ProblemSet
from tests.fakes import make_reward
from tests.run_folders import write_run


@pytest.fixture
def arguments(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Of a command on two small files, whose gold answers need no worker process to be believed."""
    monkeypatch.setattr(problems, "sound_golds", lambda pairs, config: [True] * len(pairs))
    for name, count in (("sums", 6), ("few", 2)):
        rows = [{"problem": f"What is {a} + {count}?", "answer": str(a + count)} for a in range(count)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [
        "conf=quickstart",
        f"run.folder={tmp_path / 'runs'}",
        f"model.path={tiny_model}",
        f"benchmarks=[file:{tmp_path}/sums.jsonl,file:{tmp_path}/few.jsonl]",
        "n=2",
        "model.dtype=float32",
        "rollout.max_prompt_tokens=128",
        "lora.rank=4",
        "lora.alpha=8",
    ]


@pytest.fixture
def adapter(tiny_model: Path, tmp_path: Path) -> Path:
    return save_adapter(tiny_model, tmp_path / "adapter", std=0.1)


def save_adapter(model: Path, folder: Path, std: float) -> Path:
    """What PEFT saves of an adapter of rank 8 on two modules, its B of this spread."""
    from peft import LoraConfig, get_peft_model
    from torch.nn.init import normal_
    from transformers import AutoModelForCausalLM

    lora = LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=4, target_modules=["q_proj", "up_proj"])
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(model), lora)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name and std:
            normal_(weight, std=std)
    adapted.save_pretrained(folder)
    return folder


def prepared(arguments: list[str]) -> Evaluation:
    evaluation = prepare(load(arguments), detect("cpu"), Console(quiet=True))
    assert evaluation is not None
    return evaluation


def draw(evaluation: Evaluation, rounds: int, right: int) -> None:
    """Give every problem so many answers more, correct where its index is below `right`."""
    for transcript in evaluation.transcripts:
        started = transcript.rounds
        for number in range(started, started + rounds):
            for index, problem in enumerate(transcript.problems):
                group = Group(index, problem, transcript.adapter, (Sample((7, 8), (-1.0, -1.0), "7", "stop"),))
                transcript.append(number, replace(group, rewards=(make_reward(float(index < right)),)), 0.5)


def complaint(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that bad input gets, after exit code 2 was checked."""
    capsys.readouterr()
    assert evaluate.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["benchmarks=[aime42]"], "nearest: aime24, aime25"),
        (["benchmarks=[]"], "benchmarks=[aime24,amc23]"),
        (["benchmarks=[file:nowhere.jsonl]"], "benchmarks: there is no file 'nowhere.jsonl'"),
        (["benchmarks=[file:a/x.jsonl,file:b/x.csv]"], "would both be called x"),
        (["n=0"], "n=0"),
        (["eval.temperature=0"], "n=2 with eval.temperature=0"),
        (["limit=0"], "limit=0"),
        (["adapter=nowhere"], "adapter=nowhere: adapter_config.json cannot be read"),
        (["device=A40"], "this machine has no A40"),
    ],
)
def test_bad_input_is_one_line_and_leaves_no_folder(
    arguments: list[str], settings: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    given = {setting.partition("=")[0] for setting in settings}
    kept = [argument for argument in arguments if argument.partition("=")[0] not in given]
    assert said in complaint([*kept, *settings], capsys)
    assert not (tmp_path / "runs").exists()


def test_plan_says_what_would_be_drawn(
    arguments: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert evaluate.main([*arguments, "plan=true"]) == 0
    assert "sums: 6 problems × 2 samples" in capsys.readouterr().out
    assert not (tmp_path / "runs").exists()


def test_adapter_brings_its_own_rank_and_modules(arguments: list[str], adapter: Path) -> None:
    evaluation = prepared([*arguments, f"adapter={adapter}"])
    lora = evaluation.config.lora
    assert (lora.rank, lora.alpha, lora.target_modules) == (8, 4, ["q_proj", "up_proj"])
    served = AdapterRef(0, 0, str(adapter))
    assert [transcript.adapter for transcript in evaluation.transcripts] == [None, served] * 2


def test_checkpoint_stands_for_its_adapter(arguments: list[str], adapter: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "update-000002"
    checkpoint.mkdir()
    adapter.rename(checkpoint / "adapter")
    evaluation = prepared([*arguments, f"adapter={checkpoint}"])
    served = evaluation.transcripts[1].adapter
    assert served is not None
    assert served.path == str(checkpoint / "adapter")


def test_untouched_foreign_and_other_models_adapters_are_refused(
    arguments: list[str], adapter: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    untouched = save_adapter(tiny_model, tmp_path / "untouched", std=0.0)
    assert "every B or A is zero" in complaint([*arguments, f"adapter={untouched}"], capsys)
    stated = json.loads((adapter / "adapter_config.json").read_text())
    for change, said in (
        ({"peft_type": "IA3"}, "it is no LoRA"),
        ({"base_model_name_or_path": "someone/else"}, "was made for someone/else"),
        ({"r": 16}, "has shape [8, 128], this run's [16, 128]"),
        ({"target_modules": ["q_proj", "lm_head"]}, "it adapts lm_head"),
        ({"target_modules": "all-linear"}, "it adapts"),
        ({"r": None}, "does not state r"),
    ):
        (adapter / "adapter_config.json").write_text(json.dumps(stated | change))
        assert said in complaint([*arguments, f"adapter={adapter}"], capsys)
    assert not (tmp_path / "runs").exists()


def test_results_are_written_as_promised(arguments: list[str], adapter: Path, tmp_path: Path) -> None:
    evaluation = prepared([*arguments, f"adapter={adapter}"])
    draw(evaluation, rounds=2, right=3)
    console = Console(record=True, width=200)
    assert evaluation.complete
    assert conclude(evaluation, "completed", console) == 0
    folder = tmp_path / "runs" / "quickstart" / "evaluation"
    assert sorted(path.name for path in folder.iterdir()) == ["evaluation.json", "evaluation.md", "samples"]
    assert sorted(path.name for path in (folder / "samples").iterdir()) == [
        "few-adapter.jsonl",
        "few-base.jsonl",
        "sums-adapter.jsonl",
        "sums-base.jsonl",
    ]
    document = json.loads((folder / "evaluation.json").read_text())
    assert document["protocol"]["max_response_tokens"] == 24
    sums = document["benchmarks"][0]
    assert (sums["name"], sums["problems"], sums["base"]["n"]) == ("sums", 6, 2)
    assert sums["base"]["pass@1"]["value"] == sums["base"]["maj@n"]["value"] == 0.5
    assert sums["base"]["tokens"] == 24
    assert sums["paired"] == {"difference": 0.0, "ci95": [0.0, 0.0], "p": 1.0}
    shown = console.export_text()
    assert "sums: adapter less base +0.000" in shown
    assert "0.500 (" in (folder / "evaluation.md").read_text()


def test_cut_evaluation_states_its_n(arguments: list[str]) -> None:
    evaluation = prepared(arguments)
    draw(evaluation, rounds=1, right=1)
    console = Console(record=True, width=200)
    assert conclude(evaluation, "budget_exhausted", console) == 0
    shown = console.export_text()
    assert "sums: 1 of 2 samples a problem so far" in shown
    assert "the same command goes on from here" in shown
    assert conclude(evaluation, "SIGTERM", console) == 143


def test_no_complete_round_gives_no_figures(arguments: list[str]) -> None:
    evaluation = prepared(arguments)
    console = Console(record=True, width=200)
    assert conclude(evaluation, "budget_exhausted", console) == 0
    assert json.loads((evaluation.folder / "evaluation.json").read_text())["benchmarks"] == []
    for shown in (console.export_text(), (evaluation.folder / "evaluation.md").read_text()):
        assert "No round of samples is complete yet" in shown
        assert "maj@n" not in shown


def test_finished_evaluation_shows_its_table_without_an_engine(
    arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluation = prepared(arguments)
    draw(evaluation, rounds=2, right=6)
    record(evaluation, "running")
    release(evaluation.folder)
    monkeypatch.setattr(evaluate, "carry_out", None)
    assert evaluate.main(arguments) == 0
    assert "1.000" in capsys.readouterr().out


def release(folder: Path) -> None:
    """Let another claim in this process have the folder: a copy is locked by nobody."""
    shutil.copytree(folder, folder.with_name("copy"))
    shutil.rmtree(folder)
    folder.with_name("copy").rename(folder)


def begun(folder: Path, config: Config) -> dict[str, Any]:
    """Leave behind what an evaluation by this protocol would."""
    protocol = protocol_of(config, None)
    (folder / "samples").mkdir(parents=True)
    (folder / "samples" / "sums-base.jsonl").touch()
    replace_text(folder / "evaluation.json", json.dumps({"protocol": protocol}))
    return protocol


@pytest.mark.parametrize("change", ["eval.temperature=0.7", "run.seed=1", "rollout.max_response_tokens=99"])
def test_changed_protocol_is_refused_on_resume(tmp_path: Path, change: str) -> None:
    begun(tmp_path, load(["conf=quickstart"]))
    changed = load(["conf=quickstart", change])
    key = change.partition("=")[0].rpartition(".")[2]
    with pytest.raises(BadInput, match=f"was begun with {key}="):
        claim(tmp_path, changed, protocol_of(changed, None))
    changed.run.overwrite = True
    release(tmp_path)
    claim(tmp_path, changed, protocol_of(changed, None))
    assert not any(tmp_path.iterdir())


def test_more_samples_and_problems_may_be_asked_for(tmp_path: Path) -> None:
    begun(tmp_path, load(["conf=quickstart"]))
    more = load(["conf=quickstart", "n=64", "limit=3", "budget.minutes=1"])
    claim(tmp_path, more, protocol_of(more, None))


def test_adapter_may_join_but_not_be_exchanged(tmp_path: Path) -> None:
    config = load(["conf=quickstart"])
    protocol = begun(tmp_path, config) | {"adapter": "a", "adapter_digest": "1"}
    claim(tmp_path, config, protocol)
    replace_text(tmp_path / "evaluation.json", json.dumps({"protocol": protocol}))
    release(tmp_path)
    with pytest.raises(BadInput, match="adapter=a, not a with other weights"):
        claim(tmp_path, config, protocol | {"adapter_digest": "2"})


def test_two_processes_do_not_share_an_evaluation(tmp_path: Path) -> None:
    config = load(["conf=quickstart"])
    claim(tmp_path, config, protocol_of(config, None))
    with pytest.raises(BadInput, match="at work in another process"):
        claim(tmp_path, config, protocol_of(config, None))


def test_evaluation_is_no_run_and_goes_when_its_run_is_overwritten(tmp_path: Path) -> None:
    settings = ["conf=quickstart", f"run.folder={tmp_path}"]
    config = load(settings)
    folder = tmp_path / "quickstart"
    claim(folder / "evaluation", config, protocol_of(config, None))
    config.run.overwrite = True
    claim_run(config, open_folder(config), ProblemSet((), (), {}))
    assert (folder / "evaluation").exists()
    release(folder)
    claim_run(config, open_folder(config), ProblemSet((), (), {}))
    assert not (folder / "evaluation").exists()


def test_transcripts_keep_the_whole_response(arguments: list[str]) -> None:
    evaluation = prepared(arguments)
    draw(evaluation, rounds=1, right=1)
    transcript: Transcript = evaluation.exams[1].base
    rows = [json.loads(line) for line in (evaluation.folder / "samples" / "few-base.jsonl").read_text().splitlines()]
    assert [row["problem"] for row in rows] == [problem.id for problem in transcript.problems]
    assert {"sample", "prompt", "response", "gold", "extracted", "status", "seconds", "format"} <= rows[0].keys()


def test_the_report_of_the_run_that_was_judged_shows_its_benchmarks(
    arguments: list[str], tiny_model: Path, tmp_path: Path
) -> None:
    run = write_run(tmp_path / "runs" / "quickstart", model=str(tiny_model))
    evaluation = prepared(arguments)
    draw(evaluation, rounds=2, right=3)
    conclude(evaluation, "completed", Console(record=True))
    assert "few" in (run / "report.html").read_text()
