import re
from contextlib import nullcontext
from dataclasses import asdict, fields
from typing import Any

import pytest

from microbudget_rl.conf.catalogue import table
from microbudget_rl.conf.checks import algorithm_faults, raise_for
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.load import dump, load
from microbudget_rl.conf.schema import AlgorithmConfig, Config
from microbudget_rl.conf.settings import RULES, build

UNBOUND: dict[str, Any] = {"clip_low": None, "clip_high": None, "dual_clip": None}


@pytest.mark.parametrize("name", table("algorithms"))
def test_presets_spell_out_every_key(name: str):
    assert table("algorithms")[name].keys() == {field.name for field in fields(AlgorithmConfig)} - {"preset"}
    config = load(["conf=quickstart", f"algorithm.preset={name}"])
    assert asdict(config.algorithm) == {"preset": name, **table("algorithms")[name]}
    assert f"mismatch: {table('algorithms')[name]['mismatch']}" in dump(config)


def test_the_defaults_are_grpo():
    assert asdict(AlgorithmConfig()) == {"preset": "grpo", **table("algorithms")["grpo"]}
    assert load(["conf=r256_instruct"]).algorithm == AlgorithmConfig()


def test_explicit_keys_override_presets():
    algorithm = load(["conf=quickstart", "algorithm.clip_high=0.4", "algorithm.preset=dapo"]).algorithm
    assert (algorithm.clip_low, algorithm.clip_high) == (0.2, 0.4)
    assert load(["conf=quickstart", "algorithm.kl=0.001"]).algorithm.kl == 0.001


def test_all_impossible_combinations_are_named():
    wrong = {
        "device=A400": "device=A400",
        "data.size=4": "data.size=4",
        "eval.temperature=0": "eval.n=",
        "reward.accuracy=0": "reward.accuracy",
        "validation.patience=3": "validation.every, such as",
        "warm_start.demonstrations=64": "warm_start.source=",
        "simulate=[8]": "plan=true",
        "run.deterministic=true": "budget.updates",
        "algorithm.dual_clip=null": "negative",
    }
    with pytest.raises(BadInput) as caught:
        load(["conf=quickstart", *wrong])
    said = str(caught.value)
    assert len(said.splitlines()) == len(wrong)
    assert [word for word in wrong.values() if word not in said] == []


@pytest.mark.parametrize("acting", [{"mismatch": "bypass"}, {"mismatch": "token_tis", "steps_per_batch": 2}])
@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"clip_high": None}, r"algorithm\.clip_high=null: .*positive"),
        ({"dual_clip": None}, r"algorithm\.dual_clip=null: .*negative"),
        ({"clip_low": None, "ratio": "sequence"}, ""),
        ({"surrogate": "cispo", "clip_high": 4.0, "dual_clip": None}, ""),
        ({"surrogate": "cispo", "clip_high": None, "dual_clip": None}, r"algorithm\.clip_high=null: .*positive"),
        ({"surrogate": "sapo", **UNBOUND}, ""),
    ],
)
def test_an_acting_ratio_needs_bounds(acting: dict[str, Any], settings: dict[str, Any], named: str):
    with pytest.raises(BadInput, match=named) if named else nullcontext():
        raise_for(algorithm_faults(AlgorithmConfig(**acting, **settings)))


MOVING = "learner.max_kl=0.03"
NOT_MOVING = r"learner\.max_kl=0\.03 with learner\.max_staleness=0.*learner\.max_kl=0$"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ([MOVING], ""),
        ([MOVING, "learner.max_staleness=0"], NOT_MOVING),
        ([MOVING, "run.deterministic=true", "budget.updates=9"], NOT_MOVING),
        (["validation.every=5", "eval.problems=0"], r"validation\.every=5 .*eval\.problems.*validation\.every=0"),
        (["warm_start.source=self", "warm_start.few_shot=[{problem: a, answer: b}]", "warm_start.per_problem=2"], ""),
        (["warm_start.source=elf"], r"warm_start\.source=elf .*self"),
        (["warm_start.source=reasoning_gym:chain_sum"], r"warm_start\.source=reasoning_gym:chain_sum.*solutions"),
        (["warm_start.source=self", "lora.start_from=folder"], r"warm_start\.source=self.*lora\.start_from=folder"),
        (["warm_start.source=file:a.jsonl", "lora.start_from=folder"], ""),
        (["warm_start.source=self", "warm_start.fraction=0.6"], r"warm_start\.fraction=0\.6 .*0\.5"),
    ],
)
def test_settings_that_cannot_work_together_are_refused(settings: list[str], said: str):
    with pytest.raises(BadInput, match=said) if said else nullcontext():
        load(["conf=quickstart", *settings])


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("{source: aime24}", "[1].name=aime24: eval.benchmarks[0]"),
        ("{source: gsm8k, name: base}", "[1].name=base"),
        ("{source: gsm8k, name: a/b}", "[1].name=a/b"),
        ("{source: 'file:base.csv'}", "[1].name=base"),
        ("{source: gsm8k, n: 0}", "[1].n=0"),
        ("{source: gsm8k, limit: -1}", "[1].limit=-1"),
        ("{source: gsm8k, limits: 1}", "[1].limits: no such key; nearest: eval.benchmarks[1].limit"),
        ("{source: gsm8k, n: 2}", "[1].n=2 with eval.temperature=0"),
    ],
)
def test_a_wrong_benchmark_is_refused_in_one_sentence_that_names_its_key(entry: str, said: str):
    with pytest.raises(BadInput, match=rf"^eval\.benchmarks{re.escape(said)}[^\n]*$"):
        load(["conf=quickstart", "eval.n=1", "eval.temperature=0", f"eval.benchmarks=[{{source: aime24}},{entry}]"])
    config = load(["conf=quickstart", "eval.benchmarks=[{source: 'file:my.v2.csv', limit: 4}]"])
    assert [(each.name, each.n, each.limit) for each in config.eval.resolved_benchmarks] == [("my.v2", 2, 4)]
    assert build(Config, asdict(config), context=RULES) == config  # as a resume reads it
