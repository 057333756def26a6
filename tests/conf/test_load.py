import re
from dataclasses import asdict, replace
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
import yaml

from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.load import (
    FOLDER,
    MARK,
    beyond,
    check_one_run,
    command_line,
    compares_models,
    dump,
    load,
    read_record,
    read_value,
    recipe_names,
    written,
)
from microbudget_rl.conf.parsing import FORMAT
from microbudget_rl.conf.schema import (
    CommandLine,
    Config,
    ExampleConfig,
    RunConfig,
    ShapeConfig,
    SweepCommandLine,
    SweepConfig,
)
from microbudget_rl.conf.schema.warm_start import WarmStartConfig
from microbudget_rl.conf.settings import changed


def quickstart(*overrides: str) -> Config:
    return load(["conf=quickstart", *overrides])


MIXTURE = "mixture: [{source: file:a.csv, weight: 2}, {source: file:b.csv, name: sums, size: 5}]"


def mixed(fault: str) -> str:
    """A mixture whose second source has a fault."""
    other = {"source": "file:b.csv"} | dict([fault.split(": ")])
    return f"data.mixture=[{{source: file:a.csv}}, {{{', '.join(f'{key}: {other[key]}' for key in other)}}}]"


def recipes(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder


def test_an_adapter_brings_its_runs_settings(tmp_path: Path):
    given = quickstart("run.overwrite=true", "device=cpu", "budget.minutes=3", "learner.learning_rate=1e-5")
    begun = changed(given, {"data.template": "a: '${b}\"\n  c \n{problem}", "data.parameters": {"tolerance": 1e-5}})
    run = tmp_path / "moved"
    run.mkdir()
    (run / "config.yaml").write_text(dump(begun))
    here = {"run.name": "moved", "run.folder": str(tmp_path), "run.overwrite": False, "device": "auto"}
    begun, adapter = changed(begun, here), f"adapter={run}/checkpoints/best"
    assert load([adapter]) == begun
    other = load([adapter, "conf=r8_llama", "budget.hours=2", "algorithm.preset=dapo"])
    assert (other.data, other.budget.seconds, other.algorithm.clip_high) == (begun.data, 7200, 0.28)
    with pytest.raises(BadInput, match="conf=NAME"):
        load([f"adapter={tmp_path}/elsewhere"])
    (tmp_path / "own.yaml").write_text(f"adapter: {run}/checkpoints/best\n")
    asked = command_line([f"conf={tmp_path}/own.yaml"], CommandLine)
    assert (asked.adapter, asked.config) == (f"{run}/checkpoints/best", begun)


def test_a_recipe_may_be_a_file_anywhere(tmp_path: Path):
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts/long.yaml").write_text("extends: mine\nbudget: {minutes: 30}\n")
    (tmp_path / "own.yaml").write_text("extends: parts/long.yaml\nlora: {rank: 4}\n")
    config = load([f"conf={tmp_path}/own.yaml"])
    assert (config.run.name, config.budget.minutes, config.lora.rank) == ("own", 30, 4)
    assert config.data == load(["conf=mine"]).data
    (tmp_path / "parts/long.yaml").write_text("extends: ../own.yaml\n")
    with pytest.raises(BadInput, match="circle"):
        load([f"conf={tmp_path}/own.yaml"])
    with pytest.raises(BadInput, match=r"no file .*missing\.yaml"):
        load([f"conf={tmp_path}/missing.yaml"])


def test_paths_in_a_recipe_are_relative_to_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    (home / "model").mkdir(parents=True)
    elsewhere.mkdir()
    (home / "own.yaml").write_text(
        "extends: mine\nmodel: {path: model}\nlora: {start_from: first}\nbenchmarks: [heldout, file:b.csv]\n"
        "data: {source: file:a.csv, problem_field: q, eval_source: hub:a/b}\neval: {benchmarks: [{source: file:b.csv}]}"
    )
    monkeypatch.chdir(elsewhere)
    asked = command_line([recipe := "conf=../home/own.yaml"], CommandLine)
    assert (asked.model.path, asked.lora.start_from) == (f"{home}/model", f"{home}/first")
    assert asked.benchmarks == ["heldout", f"file:{home}/b.csv"]
    assert (asked.data.source, asked.eval.benchmarks[0].source) == (f"file:{home}/a.csv", f"file:{home}/b.csv")
    assert asked.data.eval_source == "hub:a/b"
    assert load([recipe, "data.source=file:/data/other.csv"]).data.problem_field == ""
    (elsewhere / "other.yaml").write_text("extends: ../home/own.yaml\nmodel: {path: owner/name}\n")
    other = load(["conf=other.yaml"])
    assert (other.model.path, other.data.source) == ("owner/name", f"file:{home}/a.csv")


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_loads(name: str):
    assert load([f"conf={name}"]).run.name == name


def test_base_is_the_defaults():
    assert replace(load(["conf=base"]), run=RunConfig()) == Config()


MODELS = ("instruct", "llama", "math", "qwen3", "deepscaler")


@pytest.mark.parametrize("model", MODELS)
def test_paper_recipes_differ_in_rank_alone(model: str):
    one, *others = (asdict(load([f"conf=r{rank}_{model}"])) for rank in (8, 64, 256))
    for other in others:
        assert [key for key in one if one[key] != other[key]] == ["run", "lora"]
        assert [key for key in one["lora"] if one["lora"][key] != other["lora"][key]] == ["rank"]
    assert [recipe["lora"]["rank"] for recipe in (one, *others)] == [8, 64, 256]
    assert one["rollout"]["max_prompt_tokens"] + one["rollout"]["max_response_tokens"] == 512 + 3584
    assert one["rollout"]["samples_per_problem"] == 8
    assert (one["reward"]["accuracy"], one["reward"]["format"]) == (1.0, 0.2)
    assert one["budget"] == {"hours": 24.0, "minutes": None, "updates": None, "grace_s": 60.0, "price_per_hour": None}


def test_the_recipe_of_a_sweep_over_models_is_no_run():
    with pytest.raises(BadInput, match=r"launch/sweep\.py conf=paper, or give model\.path"):
        check_one_run(["conf=paper", "lora.rank=8"])
    for arguments in (["conf=paper", "model.path=/mine"], ["conf=paper_small"], ["conf=r8_llama"], []):
        check_one_run(arguments)


def test_a_recipes_sweep_is_for_sweep_py_alone_and_not_inherited(tmp_path: Path):
    stated = "lora: {rank: 4}\nsweep: {models: [math], ranks: [1], nonsense: 3}\n"
    folder = recipes(tmp_path, parent=stated, child="extends: parent\n")
    assert "sweep" not in yaml.safe_load(dump(load(["conf=parent"], folder)))
    asked = command_line(["conf=child"], SweepCommandLine, folder)
    assert (asked.lora.rank, asked.sweep) == (4, SweepConfig())
    with pytest.raises(BadInput, match=r"sweep\.nonsense"):
        command_line(["conf=parent"], SweepCommandLine, folder)
    assert [compares_models(name, folder) for name in ("parent", "child")] == [True, False]
    assert beyond("child", "parent", folder) == {}
    assert beyond("parent", "base", folder) == {"lora.rank": 4}


def test_overrides_win_and_keep_their_types():
    config = quickstart(
        *("lora.rank=8", "learner.learning_rate=1e-5", "run.overwrite=true", "run.name=trial"),
        *("learner.gradient_checkpointing=on", "data.template=a = {problem}", "data.problem_pattern="),
        *("data.few_shot=[{problem: 1 + 1, answer: 2}]", "data.parameters.max_terms=3"),
    )
    data, learner, run = config.data, config.learner, config.run
    assert (config.lora.rank, run.name, run.overwrite) == (8, "trial", True)
    assert (learner.learning_rate, learner.gradient_checkpointing) == (1e-5, "on")
    assert (data.template, data.problem_pattern, data.few_shot) == ("a = {problem}", "", [ExampleConfig("1 + 1", "2")])
    assert (data.parameters["min_terms"], data.parameters["max_terms"]) == (2, 3)
    assert quickstart("data.parameters={}").data.parameters == {}
    assert yaml.safe_load(dump(config)) == {"format": FORMAT, **asdict(config)}


TYPED = ["quickstart #2", "#x", "one\ntwo", "[a] # b", '"quoted"', " ~ ", "1e3", "007", "null", "a: b #### {x}"]


@pytest.mark.parametrize("text", TYPED)
def test_a_text_is_taken_as_it_is_typed(text: str):
    assert read_value("run.name", text) == text
    assert read_value("data.system", text) == (None if text == "null" else text)
    for key in ("run.name", "data.parameters.mark", "data.few_shot"):
        value = [{"problem": text + "😀"}] if key == "data.few_shot" else text
        assert read_value(*written(key, value).split("=", 1)) == value


@pytest.mark.parametrize(("given", "response", "tokens"), [(4096, 24, 4096), (4096, 9000, 9160), (100, 24, 184)])
def test_a_microbatch_holds_the_longest_sample(given: int, response: int, tokens: int):
    asked = (f"learner.tokens_per_microbatch={given}", f"rollout.max_response_tokens={response}")
    assert quickstart(*asked, "model.shape.max_position_embeddings=16384").learner.tokens_per_microbatch == tokens


def test_a_setting_follows_another():
    hours = {(): 480, ("hours=2",): 7200, ("hours=2", "minutes=5"): 300}
    assert {each: quickstart(*(f"budget.{one}" for one in each)).budget.seconds for each in hours} == hours
    assert quickstart("model.path=/some/model").model.shape == ShapeConfig() != quickstart().model.shape
    assert load(["conf=math", "model.path=/some/model", "model.stop_tokens=[a]"]).model.stop_tokens == ["a"]
    assert load(["conf=quickstart_warm", "warm_start.source=self"]).warm_start == WarmStartConfig("self")
    own = quickstart("data.source=file:mine.csv").data
    assert (own.parameters, own.problem_pattern, own.template) == ({}, "", quickstart().data.template)


@pytest.mark.parametrize("recipe", ["gsm8k_1.5b", "paper", "quickstart"])
@pytest.mark.parametrize("given", ["data.source=file:a.csv", "data.mixture=[{source: file:a.csv}]"])
@pytest.mark.parametrize("held_out", [("", "drop", 0.25), ("file:b.csv", "report_only", 0.4)])
def test_held_out_problems_are_those_of_the_given_source(recipe: str, given: str, held_out: tuple[Any, ...]):
    keys = ("data.eval_source", "data.contamination", "eval.share")
    both = [f"{key}={value}" for key, value in zip(keys, held_out, strict=True) if held_out[0]]
    config = load([f"conf={recipe}", given, *both])
    assert attrgetter(*keys)(config) == held_out


def test_a_mixture_replaces_the_source_and_what_follows_it(tmp_path: Path):
    texts = {"one": "data: {source: file:a.csv, problem_pattern: (.)}", "two": f"extends: one\ndata:\n  {MIXTURE}"}
    folder = recipes(tmp_path, **texts, both=f"data:\n  source: file:a.csv\n  {MIXTURE}")
    data = load(["conf=two"], folder).data
    assert (data.source, data.problem_pattern, data.weights) == ("", "", {"a": 2.0, "sums": 1.0})
    assert {name: (one.source, one.size) for name, one in data.by_source.items()} == {
        "a": (f"file:{tmp_path}/a.csv", None),
        "sums": (f"file:{tmp_path}/b.csv", 5),
    }
    (tmp_path / "config.yaml").write_text(dump(load(["conf=two"], folder)))
    assert read_record(tmp_path / "config.yaml").data == data
    own = ["data.problem_field=text", "data.mixture=[{source: file:b.csv}]"]
    again = load(["conf=two", *own], recipes(tmp_path, three="extends: two\ndata: {answer_field: result}")).data
    assert (again.problem_field, again.weights) == ("text", {"b": 1.0})
    assert load(["conf=three", own[1]], folder).data.answer_field == ""
    back = load(["conf=two", "data.source=file:c.csv"], folder).data
    assert (back.source, back.mixture) == ("file:c.csv", [])
    with pytest.raises(BadInput, match=r"^data\.source=file:.*/a\.csv with data\.mixture: "):
        load(["conf=both"], folder)


def test_a_deterministic_run_takes_turns(tmp_path: Path):
    asked = ("run.deterministic=true", "budget.updates=9")
    assert quickstart().learner.max_staleness == 1
    assert quickstart(*asked).learner.max_staleness == 0
    folder = recipes(tmp_path, ahead="learner: {max_staleness: 2, max_kl: 0.03}", same="run: {deterministic: true}")
    turns, ahead = load(["conf=ahead", *asked], folder).learner, load(["conf=ahead"], folder).learner
    assert [(each.max_staleness, each.max_kl) for each in (turns, ahead)] == [(0, 0.0), (2, 0.03)]
    for arguments in (["conf=quickstart", *asked, "learner.max_staleness=1"], ["conf=quickstart", asked[0]]):
        with pytest.raises(BadInput, match=r"run\.deterministic=true"):
            load(arguments)
    with pytest.raises(BadInput, match=r"learner\.max_staleness=1: .*run\.deterministic"):
        load(["conf=same", "budget.updates=9", "learner.max_staleness=1"], folder)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("rank=8", ["rank: no such key", "nearest: lora.rank"]),
        ("lora.rank=8 # low", ["lora.rank=8 # low", "comment", "quote it"]),
        ("data.few_shot=[{problem: one\ntwo}]", ["line break", "double quotes"]),
        ("benchmarks=[aime42]", ["benchmarks=aime42: no such benchmark", "nearest: aime2"]),
        ("lora[0]=8", ["'lora[0]' is not a setting"]),
        ("lora=8", ["lora=8", "section", "rank, alpha"]),
        ("run.report_to=wandb", ["write run.report_to=[wandb]"]),
        ('reward.custom=[{function: "my_rewards.py:f"}]', ["no .py"]),
        ("data.few_shot=[{probelm: a}]", ["data.few_shot[0].probelm", "nearest: data.few_shot[0].problem"]),
        ("data.few_shot=[{problem: a, answer: [b]}]", ["data.few_shot[0].answer=[b]", "expected text"]),
        ("data.mixture=file:a.csv", ["data.mixture=file:a.csv", "a list of {source"]),
        (mixed("weight: .nan"), ["data.mixture[1].weight=nan", "above 0"]),
        (mixed("wieght: 2"), ["data.mixture[1].wieght", "nearest: data.mixture[1].weight"]),
        (mixed("name: a"), ["data.mixture[1].name=a", "data.mixture[0]"]),
        (mixed("source: a.csv"), ["data.mixture[1].source=a.csv", "file:PATH"]),
        ("lora.target_modules=[q_prj]", ["q_prj", "q_proj"]),
        ("data.parameters.mark='a", ["mark='a", "quote it"]),
        ("lora.rank=513", ["lora.rank=513", "vLLM"]),
        ("budget.hours=24:00", ["budget.hours=24:00", "a number"]),
        ("run.name=a/b", ["run.name=a/b", "plain folder name"]),
        ("eval.max_response_tokens=9000", ["eval.max_response_tokens=9000", "8192"]),
        ("algorithm.preset=dopa", ["algorithm.preset=dopa", "grpo, dr_grpo, dapo, gspo, cispo, sapo"]),
        ("model.shape.num_hidden_layers=0", ["model.shape.num_hidden_layers=0", "all of model.shape"]),
    ],
)
def test_unusable_overrides(override: str, words: list[str]):
    assert_refused(["conf=quickstart", override], words)


def test_every_fault_is_a_line_with_its_file(tmp_path: Path):
    folder = recipes(tmp_path, child="lora: {rnak: 8, alpha: 0, rank: 0}\neval: {n: many}")
    with pytest.raises(BadInput) as caught:
        load(["conf=child", "lora.rank=513", "learner.beta1=a"], folder)
    file = f"{folder / 'child.yaml'}: "
    faults = [f"{file}lora.rnak", f"{file}lora.alpha=0", f"{file}eval.n=many", "lora.rank=513", "learner.beta1=a"]
    lines = str(caught.value).splitlines()
    assert len(lines) == len(faults)
    assert all(any(line.startswith(fault) for line in lines) for fault in faults)


def test_recipes_extend_one_another(tmp_path: Path):
    folder = recipes(
        tmp_path,
        root="lora: {rank: 8, alpha: 8}",
        parent="extends: base\nrun: {seed: 1}\nlora: {rank: 8, alpha: 8}",
        child="extends: parent\nlora: {rank: 64}",
    )
    config = load(["conf=child"], folder)
    assert (config.run.seed, config.lora.rank, config.lora.alpha) == (1, 64, 8)
    assert load(["conf=root"], folder).lora == load(["conf=base", "lora={rank: 8, alpha: 8}"]).lora
    assert recipe_names(folder) == ["base", "child", "parent", "root"]


def test_the_same_key_twice_is_refused():
    assert_refused(["conf=quickstart", "lora.rank=8", "lora.rank=16"], ["lora.rank=16", "lora.rank=8", "keep one"])
    assert_refused(["conf=quickstart", "lora={rank: 8}", "lora.alpha=16"], ["keep one"])


def test_a_recipe_has_to_be_named():
    assert_refused([], ["conf=quickstart", "lists the recipes"])
    assert_refused(["conf=quikstart"], ["conf=quikstart", "nearest: quickstart", "r8_instruct"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("extends: bse", ["child.yaml", "extends: bse", "nearest: base"]),
        ("extends: child", ["circle"]),
        ("lora: {rank: 8", ["child.yaml", "not valid YAML"]),
        ("lora:\n  rank: 8\n  rank: 9", ["child.yaml", "duplicate key"]),
        ("- lora", ["child.yaml", "list"]),
    ],
)
def test_unusable_recipes(tmp_path: Path, text: str, words: list[str]):
    assert_refused(["conf=child"], words, recipes(tmp_path, child=text))


def assert_refused(arguments: list[str], words: list[str], folder: Path = FOLDER) -> None:
    with pytest.raises(BadInput) as caught:
        load(arguments, folder)
    assert len(str(caught.value).splitlines()) == 1
    assert [word for word in words if word not in str(caught.value)] == []


@pytest.mark.parametrize(
    ("text", "other", "named"),
    [
        ("dtype: float32", "dtype: nope", r"model\.dtype=nope"),
        ("learner:\n", "learner:\n  overlap: true\n", r"learner\.overlap: no such key"),
        (f"format: {FORMAT}", f"format: {FORMAT + 1}", f"format {FORMAT + 1}, .*use the version"),
        (f"format: {FORMAT}\n", "", "no format"),
    ],
)
def test_recorded_settings_are_checked(text: str, other: str, named: str, tmp_path: Path):
    file, kept = tmp_path / "config.yaml", dump(quickstart("model.dtype=float32"))
    (tmp_path / MARK).touch()
    file.write_text(kept)
    assert load([f"adapter={tmp_path}/checkpoints/best"]).model == read_record(file).model
    file.write_text(kept.replace(text, other))
    for read in (lambda: read_record(file), lambda: load([f"adapter={tmp_path}/checkpoints/best"])):
        with pytest.raises(BadInput, match=re.escape(str(file)) + f".*{named}"):
            read()


@pytest.mark.parametrize("kept", [0, 9, 40, 400, 1000])
def test_a_cut_off_record_of_a_run_is_damaged_and_not_foreign(kept: int, tmp_path: Path):
    file = tmp_path / "config.yaml"
    file.write_text(dump(quickstart())[:kept])
    with pytest.raises(BadInput, match="conf=NAME"):
        load([f"adapter={tmp_path}"])
    (tmp_path / MARK).touch()
    with pytest.raises(BadInput, match=r"config\.yaml.*the file is damaged: restore"):
        load([f"adapter={tmp_path}/checkpoints/best"])


@pytest.mark.parametrize(
    ("given", "device"),
    [
        ("rtx 3060", "RTX3060"),
        ("RTX 4060 Ti 16GB", "RTX4060Ti"),
        ("NVIDIA A10 24 gb", "A10"),
        ("NVIDIA RTX A4000", "A4000"),
        ("NVIDIA A100-SXM4-80GB", "A100-80"),
        ("A100", "A100-40"),
        ("12 gb", "12GB"),
        ("4060 Ti 8GB", ""),
        ("RTX 3080 12GB", ""),
        ("0GB", ""),
    ],
)
def test_gpus_are_known_as_people_call_them_but_not_with_other_memory(given: str, device: str):
    arguments = ["conf=quickstart", f"device={given}"]
    if device:
        assert load(arguments).device == device
    else:
        with pytest.raises(BadInput, match="by its memory"):
            load(arguments)
