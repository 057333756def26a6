import gzip
import json
import threading
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from actors.messages import Status
from actors.models.hub import HubAway
from conf.catalogue import SOURCES
from conf.errors import BadInput
from conf.schema import Config, CustomRewardConfig
from conf.settings import changed
from rewards.pool import VerifierPool
from rewards.problems import sources
from rewards.problems.loading import load
from rewards.problems.rows import EMPTY
from rewards.reward import RewardFunction
from tests.rewards.problems.rows import SUMS, WRITERS, Rows, refuse


@pytest.mark.parametrize("parameters", [{"nope": 1}, {"min_terms": 0}, {"min_terms": "x"}, {"seed": 3}])
def test_wrong_generator_parameters_are_refused(
    parameters: dict[str, Any], config: Config, byte_tokenizer: Any
) -> None:
    config = changed(config, {"data.source": "reasoning_gym:chain_sum", "data.parameters": parameters})
    refuse(config, byte_tokenizer, "data.parameters", str(parameters), "ChainSumConfig")


def test_hub_that_cannot_be_reached_is_refused_with_the_remedy(
    config: Config, byte_tokenizer: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import datasets
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    config = changed(config, {"data.source": "hub:nobody/nothing:test"})
    refuse(config, byte_tokenizer, "'nobody/nothing'", "'test'", "file:PATH", "huggingface.co/datasets/nobody/nothing")


def test_hub_that_is_away_is_asked_once_and_its_cache_used(
    config: Config, byte_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    def away(*_: str) -> None:
        raise HubAway("ConnectError")

    monkeypatch.setattr(sources, "newest", away)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: SUMS if datasets.config.HF_HUB_OFFLINE else 1 / 0)
    expected = load(config, byte_tokenizer)
    config = changed(config, {"data.source": "hub:owner/sums"})
    assert load(config, byte_tokenizer) == expected
    assert not datasets.config.HF_HUB_OFFLINE
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: 1 / 0)
    refuse(config, byte_tokenizer, "cannot be reached: ConnectError", "file:PATH")


@pytest.mark.parametrize(
    ("source", "scan", "found"),
    [
        ("owner/sums/main", None, 30),
        ("owner/sums/main:test", None, 12),
        ("owner/sums/other", 9, 9),
        ("owner/sums", None, ("main", "other")),
        ("owner/sums/main:dev", None, ("train", "test")),
    ],
)
def test_hub_sets_with_configurations_and_splits(
    source: str, scan: int | None, found: int | tuple[str, ...], hub: Config, byte_tokenizer: Any
) -> None:
    """A wrong one is refused with those there are."""
    hub = changed(hub, {"data.source": f"hub:{source}", "data.scan": scan})
    if isinstance(found, int):
        assert len(load(hub, byte_tokenizer).train) == found
    else:
        refuse(hub, byte_tokenizer, *found)


def test_a_revision_of_the_hub_is_what_is_read(
    config: Config, byte_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(datasets, "load_dataset", lambda *names, **how: asked.append({"names": names, **how}) or SUMS)
    config = changed(config, {"eval.problems": 0})
    for source in ("hub:owner/sums/main@3f2a:test", "hub:owner/sums"):
        config = changed(config, {"data.source": source})
        assert SOURCES.fullmatch(source)
        load(config, byte_tokenizer)
    assert [(each["names"], each["revision"], each["split"]) for each in asked] == [
        (("owner/sums", "main"), "3f2a", "test"),
        (("owner/sums",), None, "train"),
    ]


def test_hub_that_does_not_answer_is_given_up(
    config: Config, byte_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: threading.Event().wait())
    config = changed(config, {"data.source": "hub:owner/sums", "data.hub_timeout_s": 0.05})
    refuse(config, byte_tokenizer, "data.hub_timeout_s=0.05")


def test_a_users_function_yields_rows(module: str, config: Config, byte_tokenizer: Any) -> None:
    config = changed(config, {"data.source": f"import:{module}:sums", "data.parameters": {"first": 3, "last": 23}})
    problems = load(config, byte_tokenizer)
    assert {int(p.gold) for p in problems.train + problems.heldout} == set(range(4, 24))


@pytest.mark.parametrize("function", ["nothing", "strings", "MODULE"])
def test_a_users_function_that_cannot_be_used_is_refused(
    function: str, module: str, config: Config, byte_tokenizer: Any
) -> None:
    config = changed(config, {"data.source": f"import:{module}:{function}"})
    refuse(config, byte_tokenizer, "data.source", function)


def test_a_rows_columns_are_kept_for_a_users_reward_alone(config: Config, byte_tokenizer: Any) -> None:
    assert {problem.columns for problem in load(config, byte_tokenizer).train} == {"{}"}
    config = changed(config, {"reward.custom": [CustomRewardConfig("posixpath:join")]})
    problem = load(config, byte_tokenizer).train[0]
    assert json.loads(problem.columns)["answer"] == problem.gold


def test_generators_score_their_answers(byte_tokenizer: Any) -> None:
    """Any palindrome of the given letters is right, and the generator's own scoring gives a little to all others."""
    config = changed(
        Config(),
        {
            "data.source": "reasoning_gym:palindrome_generation",
            "data.size": 4,
            "data.parameters": {"min_length": 8, "max_length": 8},
            "eval.problems": 0,
            "learner.problems_per_update": 4,
            "rollout.max_prompt_tokens": 2000,
        },
    )
    problem = load(config, byte_tokenizer).train[0]
    with VerifierPool(RewardFunction(config.reward), workers=1) as pool:

        def judge(answer: str) -> Status:
            return pool.verify(problem.gold, rf"\boxed{{{answer}}}", problem.grader).status

        half = problem.gold[:4]
        other = half[::-1] + half
        assert other != problem.gold
        assert judge(problem.gold) is Status.CORRECT
        assert judge(other) is Status.CORRECT
        assert judge(f"x{problem.gold}x") is Status.WRONG
        assert judge(half) is Status.WRONG
        assert judge("") is Status.UNPARSABLE


def test_generators_that_know_one_answer_accept_no_other(byte_tokenizer: Any) -> None:
    config = changed(
        Config(),
        {
            "data.source": "reasoning_gym:basic_arithmetic",
            "data.size": 2,
            "eval.problems": 0,
            "learner.problems_per_update": 2,
        },
    )
    problem = load(config, byte_tokenizer).train[0]
    with VerifierPool(RewardFunction(config.reward), workers=1) as pool:
        statuses = [
            pool.verify(problem.gold, rf"\boxed{{{answer}}}", problem.grader).status
            for answer in (problem.gold, f"{int(problem.gold):+05d}", f"{problem.gold} or 3", "x")
        ]
        assert statuses == [Status.CORRECT, Status.CORRECT, Status.WRONG, Status.WRONG]
        assert pool.health["calls"] == 0


FORGED: Rows = [
    {**row, name: json.dumps({"generator": "chain_sum", "settings": {"seed": 0, "size": 1}, "index": 0})}
    for row, name in zip(SUMS, ["\x00grader", "grader"] * 15, strict=True)
]
"""Rows that ask to be judged as a generator's are."""


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet", "hub", "import"])
def test_nothing_in_a_row_says_how_it_is_judged(
    kind: str, module: str, config: Config, tmp_path: Path, byte_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    expected = load(config, byte_tokenizer)
    if kind in WRITERS:
        WRITERS[kind](tmp_path / f"forged.{kind}", FORGED)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: FORGED)
    config = changed(
        config,
        {
            "data.source": {"hub": "hub:owner/sums", "import": f"import:{module}:all_of"}.get(
                kind, f"file:forged.{kind}"
            ),
            "data.parameters": {"rows": FORGED} if kind == "import" else {},
        },
    )
    problems = load(config, byte_tokenizer)
    assert problems == expected
    assert not any(problem.grader for problem in problems.train + problems.heldout)


def test_a_file_beyond_all_bounds_is_read_in_part_or_not_at_all(
    config: Config, byte_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sources.MOST_BYTES, ".jsonl", 100)
    refuse(config, byte_tokenizer, "sums.jsonl", "data.scan")
    config = changed(config, {"data.scan": 20})
    assert len(load(config, byte_tokenizer).train) == 10


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (gzip.compress(b"{}", mtime=0), "gzip"),
        ('{"problem": "1 + 1", "answer": "2"}'.encode("utf-16"), "UTF-16"),
        (b"PK\x03\x04", "workbook"),
    ],
)
def test_a_file_is_named_as_what_it_is(
    content: bytes, named: str, config: Config, byte_tokenizer: Any, tmp_path: Path
) -> None:
    (tmp_path / "sums.jsonl").write_bytes(content)
    refuse(config, byte_tokenizer, "sums.jsonl", named)


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv"])
def test_a_byte_order_mark_is_passed_over(kind: str, config: Config, byte_tokenizer: Any, tmp_path: Path) -> None:
    expected = load(config, byte_tokenizer)
    file = tmp_path / f"excel.{kind}"
    WRITERS[kind](file, SUMS)
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    config = changed(config, {"data.source": f"file:{file}"})
    assert load(config, byte_tokenizer) == expected


def test_parquet_has_types_of_its_own(config: Config, byte_tokenizer: Any, tmp_path: Path) -> None:
    answers = [Decimal("0.50"), date(2026, 11, 27), {"a": 1}, timedelta(1), b"x"]
    config = changed(config, {"eval.problems": 0, "learner.problems_per_update": 1})
    golds = []
    for number, answer in enumerate(answers):
        WRITERS["parquet"](tmp_path / f"{number}.parquet", [{"problem": "What day is it?", "answer": answer}])
        config = changed(config, {"data.source": f"file:{tmp_path / f'{number}.parquet'}"})
        try:
            golds += [problem.gold for problem in load(config, byte_tokenizer).train]
        except BadInput as refused:
            golds.append(EMPTY if EMPTY in str(refused) else str(refused))
    assert golds == ["0.50", "2026-11-27", EMPTY, EMPTY, EMPTY]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.jsonl", b'{"problem": 1\n'),
        ("rows.jsonl", b"[1, 2]\n"),
        ("rows.jsonl", b"\xff\xfe"),
        ("rows.json", b'{"problem": "p", "answer": "1"}'),
        ("rows.parquet", b"no parquet"),
        ("rows.csv", b"problem,answer\n" + b"1" * 200_000 + b",1\n"),
        ("rows.jsonl", b'{"problem": "' + b"1" * 2**20 + b'", "answer": "1"}\n'),
        ("rows.csv", b"problem,answer,answer\n1 + 1,2,3\n"),
        ("rows.jsonl", b'{"problem": "1 + 1", "answer": "2", "answer": "3"}\n'),
        ("rows.json", b'[{"problem": "1 + 1", "answer": "2", "answer": "3"}]'),
    ],
)
def test_broken_file_is_refused(name: str, content: bytes, config: Config, byte_tokenizer: Any, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    config = changed(config, {"data.source": f"file:{tmp_path / name}"})
    refuse(config, byte_tokenizer, "data.source", name)
