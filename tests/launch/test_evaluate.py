"""Everything of an evaluation that needs no engine: what is refused, what may go on, what is written."""

import json
import os
import shutil
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from microbudget_rl.actors.attempt import Attempts
from microbudget_rl.actors.coordinator.coordinator import Coordinator
from microbudget_rl.actors.evaluation.evaluator import complete_samples
from microbudget_rl.actors.messages import HELD_OUT_SETS, AdapterRef, Group, ProblemSet, Request, Sample
from microbudget_rl.actors.models.files import load_tokenizer
from microbudget_rl.actors.storage.checkpoints import Checkpoints
from microbudget_rl.actors.storage.documents import EvaluatedSample
from microbudget_rl.actors.storage.files import MARK, lock, read_rows
from microbudget_rl.actors.storage.folders import claim
from microbudget_rl.actors.storage.run_folder import RunFolder
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.load import command_line, load
from microbudget_rl.conf.schema import CommandLine
from microbudget_rl.conf.settings import changed
from microbudget_rl.launch import evaluate
from microbudget_rl.launch.evaluate import conclude
from microbudget_rl.launch.evaluation import PreparedEvaluation, alike, prepare, write_results
from microbudget_rl.launch.hardware.machine import detect
from microbudget_rl.launch.session.admission import admit, begin, take_run
from microbudget_rl.rewards.problems import loading
from microbudget_rl.rewards.problems.loading import CHOSE
from tests.actors.virtual_run import make_context
from tests.fakes import FakeEngine, FakeLearner, FakeVerifier, make_reward
from tests.run_folders import write_run
from tests.trained_runs import save_adapter, write_trained
from tests.virtual_time import VirtualClock, run_virtually


@pytest.fixture
def arguments(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Arguments of an evaluation on two small files, whose answers need no worker process to be accepted."""
    monkeypatch.setattr(loading, "golds_that_verify", lambda pairs, config: [True] * len(pairs))
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
        "lora.rank=64",
    ]


@pytest.fixture
def adapter(tiny_model: Path, tmp_path: Path) -> Path:
    save_adapter(tmp_path / "adapter", tiny_model, std=0.1)
    return tmp_path / "adapter"


def prepared(arguments: list[str]) -> PreparedEvaluation:
    evaluation = prepare(command_line(arguments, CommandLine), detect("cpu"), Console(quiet=True))
    assert evaluation is not None
    return evaluation


def draw(evaluation: PreparedEvaluation, rounds: int, right: int) -> None:
    """Give every problem so many responses more, correct where its index is below `right`."""
    for policy in evaluation.policies:
        started = policy.rounds
        for number in range(started, started + rounds):
            for index, problem in enumerate(policy.problems):
                group = Group(index, problem, policy.adapter, (Sample((7, 8), (-1.0, -1.0), "7", "stop"),))
                policy.add(number, replace(group, rewards=(make_reward(float(index < right)),)), 0.5)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("benchmarks=[aime42]", "aime24"),
        ("benchmarks=[]", "benchmarks=[]"),
        ("benchmarks=[file:a/x.jsonl,file:b/x.csv]", "called x"),
        ("eval.temperature=0", "eval.temperature=0"),
        ("adapter=nowhere", "nowhere/adapter_config.json"),
        ("adapter=untouched", "every B or A is zero"),
        ("device=A40", "A40"),
        ("rollout.kv_cache_gib=0.0001", "rollout.kv_cache_gib"),
    ],
)
def test_bad_input_is_one_line_and_leaves_no_folder(
    arguments: list[str], tiny_model: Path, setting: str, said: str, refused: Callable[..., str], tmp_path: Path
):
    if setting == "adapter=untouched":
        save_adapter(Path("untouched"), tiny_model, std=0.0)
    kept = [argument for argument in arguments if argument.partition("=")[0] != setting.partition("=")[0]]
    assert said in refused(evaluate.main, [*kept, setting])
    assert not (tmp_path / "runs").exists()


def test_results_are_written_as_documented(
    arguments: list[str], adapter: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    arguments = [*arguments, f"adapter={adapter}"]
    assert evaluate.main([*arguments, "plan=true"]) == 0
    assert "sums: 6 problems × 2 samples, by base model and adapter" in capsys.readouterr().out
    assert not (tmp_path / "runs").exists()
    evaluation = prepared(arguments)
    assert [each.adapter for each in evaluation.policies] == [None, AdapterRef(0, 0, str(adapter))] * 2
    draw(evaluation, rounds=2, right=3)
    assert evaluation.complete
    assert conclude(evaluation, "completed", Console(quiet=True)) == 0
    folder = tmp_path / "runs" / "quickstart" / "evaluation"
    assert sorted(path.name for path in folder.iterdir()) == [MARK, "evaluation.json", "evaluation.md", "samples"]
    names = {f"eval-{policy}-{name}.jsonl" for name in ("few", "sums") for policy in ("base", "adapter")}
    assert {path.name for path in (folder / "samples").iterdir()} == names
    sample, *_ = read_rows(folder / "samples" / "eval-base-few.jsonl", EvaluatedSample)
    assert {"version", "reward", "extracted"} <= sample.content.keys()
    document = json.loads((folder / "evaluation.json").read_text())
    assert document["protocol"]["max_response_tokens"] == 24
    found = document["protocol"]["adapter_config"]
    assert (found["base"], found["rank"], found["alpha"]) == (str(tiny_model), 4, 8)
    sums = document["benchmarks"][0]
    assert (sums["name"], sums["problems"], sums["base"]["n"], sums["base"]["tokens"]) == ("sums", 6, 2, 24)
    assert sums["base"]["pass@1"] == sums["base"]["maj@n"] == 0.5
    assert (sums["paired"]["difference"], sums["paired"]["p"]) == (0.0, 1.0)
    assert sums["paired"]["ci95"][0] < 0 < sums["paired"]["ci95"][1]
    assert "0.500 (" in (folder / "evaluation.md").read_text()


def test_samples_of_the_base_model_are_taken_over_from_another_evaluation(
    arguments: list[str], adapter: Path, tmp_path: Path, refused: Callable[..., str]
):
    asked = [*arguments, "run.name=tuned", f"adapter={adapter}"]
    taken = [*asked, f"base={tmp_path}/runs/base/evaluation"]
    assert "evaluation.json" in refused(evaluate.main, taken)
    base = prepared([*arguments, "run.name=base"])
    draw(base, rounds=2, right=3)
    write_results(base, "completed")
    for other, said in (("eval.temperature=0.9", "temperature=1.0, not 0.9"), ("run.seed=7", "seed=0, not 7")):
        error = refused(evaluate.main, [*taken, other])
        assert "base=" in error
        assert said in error
    begun = prepared(asked)
    draw(begun, rounds=1, right=6)  # own samples stay
    evaluation = prepared(taken)
    assert [policy.rounds for policy in evaluation.policies] == [2, 1, 2, 1]
    assert [policy.rounds for policy in prepared(taken).policies] == [2, 1, 2, 1]
    scores = [policy.scores(policy.of_rounds(2)).pass_at_1 for policy in evaluation.policies[::2]]
    assert scores == [(6 + 3) / 12, 1.0]
    assert len(read_rows(evaluation.folder.path / "samples" / "eval-base-sums.jsonl", EvaluatedSample)) == 12


def test_finished_evaluation_needs_no_engine_and_is_in_the_report_of_its_run(
    arguments: list[str], tiny_model: Path, tmp_path: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
):
    run = write_run(tmp_path / "runs" / "quickstart", model=str(tiny_model))
    evaluation = prepared(arguments)
    draw(evaluation, rounds=2, right=6)
    write_results(evaluation, "running")
    monkeypatch.setattr(evaluate, "carry_out", None)
    assert evaluate.main(arguments) == 0
    assert "few" in (run / "report.html").read_text()
    shutil.rmtree(run)
    write_run(run, model="someone/else")
    assert "someone/else" in refused(evaluate.main, arguments)


def test_cut_evaluation_has_no_figures_without_a_complete_round(arguments: list[str]):
    evaluation = prepared(arguments)
    console = Console(record=True, width=200)
    assert conclude(evaluation, "budget_exhausted", console) == 0
    assert json.loads((evaluation.folder.path / "evaluation.json").read_text())["benchmarks"] == []
    draw(evaluation, rounds=1, right=1)
    assert conclude(evaluation, "SIGTERM", console) == 143
    assert "sums: 1 of 2 samples" in console.export_text()


@pytest.fixture
def trained(arguments: list[str], tiny_model: Path, tmp_path: Path) -> Path:
    """The folder of a run of a sweep, with settings of its own."""
    own = ("device=cpu", "run.overwrite=true", "eval.temperature=0.9", "data.template={problem} is ${problem} =")
    return write_trained(tmp_path / "sweep" / "r8", tiny_model, settings=own)


def test_adapter_of_a_run_is_evaluated_with_its_settings_in_its_folder(arguments: list[str], trained: Path):
    asked = [f"adapter={trained}/checkpoints/latest", arguments[3]]
    evaluation = prepared(asked)
    assert evaluation.folder.path == trained / "evaluation"
    protocol = evaluation.protocol
    assert (protocol.temperature, protocol.settings["data.template"]) == (0.9, "{problem} is ${problem} =")
    assert protocol.adapter == str(trained / "checkpoints" / "update-000004" / "adapter")
    assert (evaluation.config.device, evaluation.config.run.overwrite) == ("auto", False)
    assert prepared(["conf=r8_llama", *asked]).protocol == protocol
    elsewhere = prepared([*asked, "run.name=hot", "eval.temperature=1.2"])
    assert elsewhere.folder.path == trained.with_name("hot") / "evaluation"
    assert elsewhere.protocol.temperature == 1.2


def test_run_named_as_adapter_stands_for_its_result_without_the_problems_that_chose_it(
    arguments: list[str], trained: Path
):
    """Version 4 is the latest; a copy of it is the chosen one."""
    problems, checkpoints = prepared(arguments).policies[0].problems, Checkpoints(trained / "checkpoints")
    asked = [f"adapter={trained}", f"benchmarks=[file:{trained.parents[1]}/sums.jsonl]", "n=2"]
    assert prepared(asked).protocol.adapter == str(checkpoints.path_of(4) / "adapter")
    shutil.copytree(checkpoints.path_of(4), checkpoints.path_of(2))
    checkpoints.mark_best(2)
    chose = {problems[k].id: (f"What is {int(problems[k].gold) - 6} + 6?", problems[k].gold) for k in (0, 3)}
    (trained / "selection.json").write_text(json.dumps(chose))
    evaluation = prepared(asked)
    assert evaluation.protocol.adapter == str(checkpoints.path_of(2) / "adapter")
    ((benchmark, _),) = evaluation.samples
    assert [each.gold for each in benchmark.problems] == [problems[place].gold for place in (1, 2, 4, 5)]
    assert benchmark.filtered_counts == {CHOSE: 2}


def test_base_model_is_evaluated_without_the_problems_that_will_choose_in_a_run_of_its_settings(
    arguments: list[str], trained: Path, tmp_path: Path
):
    """As the runs are."""
    folder, source = f"run.folder={trained.parent}", f"file:{tmp_path}/sums.jsonl"
    own = [f"data.eval_source={source}", "eval.problems=3", "validation.problems=2", "validation.every=5"]
    own += ["data.problem_pattern=", "data.few_shot=[]"]
    asked = ["device=cpu", *arguments[:1], *arguments[2:4], *arguments[4:], folder, *own, "run.name=base"]
    ((base, _), (few, _)) = prepared(asked).samples
    assert (base.filtered_counts[CHOSE], len(base.problems)) == (2, 4)
    begun = loading.load_problems(command_line(asked, CommandLine), load_tokenizer(arguments[2].partition("=")[2], ""))
    (trained / "selection.json").write_text(json.dumps({each.id: (each.text, each.gold) for each in begun.selection}))
    ((result, _), (rest, _)) = prepared([f"adapter={trained}", arguments[3], "n=2"]).samples
    assert [[each.id for each in one.problems] for one in (base, few)] == [
        [each.id for each in one.problems] for one in (result, rest)
    ]


def test_run_without_the_checkpoint_is_named(arguments: list[str], trained: Path, refused: Callable[..., str]):
    assert "checkpoints/best" in refused(evaluate.main, [f"adapter={trained}/checkpoints/best", arguments[3], "n=2"])
    shutil.rmtree(trained / "checkpoints")
    assert "no checkpoint" in refused(evaluate.main, [f"adapter={trained}", arguments[3], "n=2"])


def test_adapter_made_elsewhere_does_not_end_up_in_the_report_of_a_run(
    arguments: list[str], adapter: Path, trained: Path, tmp_path: Path, refused: Callable[..., str]
):
    (tmp_path / "runs").mkdir()
    run = trained.rename(tmp_path / "runs" / "quickstart")
    assert "is not from the run in" in refused(evaluate.main, [*arguments, f"adapter={adapter}"])
    assert not (run / "evaluation").exists()
    named = prepared([*arguments, f"adapter={adapter}", "run.name=other"])
    assert named.folder.path == tmp_path / "runs" / "other" / "evaluation"


def test_evaluation_is_locked_and_renamed_with_its_run_when_that_is_overwritten(
    arguments: list[str], tmp_path: Path, refused: Callable[..., str]
):
    folder = tmp_path / "runs" / "quickstart" / "evaluation"
    claim(folder.parent, "run")
    descriptor = lock(folder)
    assert descriptor is not None
    assert "another process" in refused(evaluate.main, arguments)
    os.close(descriptor)
    prepared(arguments)
    config = command_line([*arguments, "run.overwrite=true"], CommandLine)
    for there in (True, False):  # the first run in the folder keeps it
        take_run(config, admit(config))
        begin(config, folder.parent, ProblemSet((), (), {}))
        assert folder.exists() == there


def test_answers_are_compared_in_one_spelling_and_unreadable_ones_with_nothing():
    assert alike(r"\frac{1}{2}", "1/2")
    assert alike("1,000", "1000")
    assert not alike("(2, 3)", "(3, 2)")
    assert not alike("$$", "$$")


class Recorder(FakeEngine):
    """seen: every request, without its adapter, by the adapter's folder."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, list[Request]] = defaultdict(list)

    async def generate(self, request: Request) -> Group:
        adapter = request.adapter
        self.seen[adapter.path if adapter else ""].append(replace(request, adapter=None))
        return Group(request.index, request.problem, adapter, (Sample((7,), (-1.0,), "7", "stop"),))


def test_a_run_and_evaluate_take_the_same_samples_of_the_held_out_problems(
    arguments: list[str], trained: Path, tmp_path: Path
):
    evaluation = prepared([f"adapter={trained}/checkpoints/latest", "benchmarks=[heldout]", "n=2"])
    (base, adapter), engine = evaluation.policies, Recorder()
    attempts = Attempts(evaluation.config, engine, FakeVerifier(0.0), VirtualClock())
    run_virtually(complete_samples(attempts, base, adapter, at_once=5))
    assert adapter.adapter
    assert len(engine.seen[""]) == 12
    assert engine.seen[""] == engine.seen[adapter.adapter.path]

    config = changed(load([f"adapter={trained}/checkpoints/latest"]), {"eval.n": 2})
    problems = loading.load_problems(config, load_tokenizer(config.model.path, config.model.path))
    folder, run_engine = RunFolder(tmp_path / "run"), Recorder()
    folder.recover()

    async def end_of_run() -> None:
        run = make_context(config, problems, folder, 600.0, run_engine, FakeLearner(), FakeVerifier())
        await Coordinator(run)._evaluations.end(AdapterRef(1, 0, "last"), inspect=False)
        await folder.flush()

    run_virtually(end_of_run())
    final, scores = folder.evaluations().final, adapter.scores(adapter.of_rounds(2)).content
    assert final
    assert run_engine.seen["last"] == engine.seen[""]
    same = final.content.keys() - {"seconds", "round_seconds"}
    assert {key: scores[key] for key in same} == {key: final.content[key] for key in same}


def test_problems_of_the_training_never_count_as_held_out(
    arguments: list[str], trained: Path, refused: Callable[..., str]
):
    asked = [f"adapter={trained}/checkpoints/latest", "benchmarks=[heldout]", "n=2"]
    ((held_out, _),) = prepared(asked).samples
    (trained / "problems.digest").write_text(json.dumps({HELD_OUT_SETS: held_out.digest}))
    for change in ("data.size=30", "eval.benchmarks=[{source: 'file:gone.jsonl'}]"):
        prepared([*asked, change])
    for change in ("eval.problems=5", "eval.problems=7", "eval.share=0.1"):
        assert "data.source" in refused(evaluate.main, [*asked, change, "plan=true"])


def test_results_of_other_benchmarks_stay_under_the_same_protocol(arguments: list[str]):
    rest = arguments[:3] + arguments[5:]
    sums, few = (f"benchmarks=[{source}]" for source in arguments[3].removeprefix("benchmarks=[")[:-1].split(","))
    for benchmark, n, rounds, right, expected in (
        (few, 1, 1, 1, [("few", 1, 0.5)]),
        (sums, 2, 2, 3, [("few", 1, 0.5), ("sums", 2, 0.5)]),
        (few, 2, 1, 2, [("sums", 2, 0.5), ("few", 2, 0.75)]),
    ):
        evaluation = prepared([*rest, benchmark, f"n={n}"])
        draw(evaluation, rounds=rounds, right=right)
        found = write_results(evaluation, "completed").benchmarks
        assert [(each.name, each.n, each.base.pass_at_1) for each in found] == expected
    with pytest.raises(BadInput, match="temperature="):
        prepared([*rest, few, "n=2", "eval.temperature=0.5"])
