import gzip
import json
import threading
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from microbudget_rl.actors.messages import HELD_OUT_SETS
from microbudget_rl.conf.catalogue import SOURCES
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.schema import CustomRewardConfig
from microbudget_rl.rewards.problems import sources
from microbudget_rl.rewards.problems.loading import lasting
from microbudget_rl.rewards.problems.rows import EMPTY, NO_TEXT
from tests.rewards.problems.rows import ALL, SUMS, WRITERS, Loader, Rows, problem_row

pytestmark = pytest.mark.long


@pytest.mark.parametrize("parameters", [{"nope": 1}, {"min_terms": 0}, {"min_terms": "x"}, {"seed": 3}])
def test_wrong_generator_parameters_are_refused(parameters: dict[str, Any], loader: Loader):
    settings = {"data.source": "reasoning_gym:chain_sum", "data.parameters": parameters}
    loader.refuse(settings, "data.parameters", str(parameters), "ChainSumConfig")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda: 1 / 0, ("division by zero", "'test'", "file:PATH", "huggingface.co/datasets/owner/sums")),
        (threading.Event().wait, ("data.hub_timeout_s=0.05",)),
    ],
)
def test_a_hub_that_fails_or_is_silent_is_named(
    answer: Any, words: tuple[str, ...], loader: Loader, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sources, "newest", lambda *_: "")
    monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: answer())
    loader.refuse({"data.source": "hub:owner/sums:test", "data.hub_timeout_s": 0.05}, "'owner/sums'", *words)


def test_a_hub_that_is_away_is_asked_once(loader: Loader, monkeypatch: pytest.MonkeyPatch):
    import datasets
    from huggingface_hub import constants

    slept = list[float]()
    monkeypatch.setattr("time.sleep", slept.append)
    for place, name in ((constants, "ENDPOINT"), (datasets.config, "HF_ENDPOINT")):
        monkeypatch.setattr(place, name, "http://127.0.0.1:9")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    loader.refuse({"data.source": "hub:owner/sums"}, "data.source", "cannot be reached (ConnectError)", "file:PATH")
    assert slept == []


def test_hub_source_names_configuration_revision_and_split(loader: Loader, monkeypatch: pytest.MonkeyPatch):
    asked: list[Any] = []
    monkeypatch.setattr(sources, "newest", lambda *_: "")
    monkeypatch.setattr("datasets.load_dataset", lambda *names, **how: asked.append((names, how)) or SUMS)
    for source, scan in {"hub:owner/sums/main@3f2a:test": 20, "hub:owner/sums": None}.items():
        assert SOURCES.fullmatch(source)
        loader.load({"data.source": source, "data.scan": scan})
    assert asked == [
        (("owner/sums", "main"), {"revision": "3f2a", "split": "test", "streaming": True}),
        (("owner/sums",), {"revision": None, "split": "train", "streaming": False}),
    ]


def test_a_users_function_yields_rows(module: str, loader: Loader):
    source = {"data.source": f"import:{module}:sums", "data.parameters": {"first": 3, "last": 23}}
    assert {int(problem.gold) for problem in loader.load({**ALL, **source}).train} == set(range(4, 24))


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("nothing", "Attribute"),
        ("strings", "object"),
        ("rude", "Keyboard"),
        ("gone", "Generator"),
        ("silent", "no row"),
    ],
)
def test_an_unusable_function_is_refused(
    function: str, said: str, module: str, loader: Loader, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sources, "PREPARE_S", 1.0)
    loader.refuse({"data.source": f"import:{module}:{function}"}, "data.source", f"{module}:{function}", said)


def test_columns_are_kept_for_a_users_reward_alone(loader: Loader):
    assert {problem.columns for problem in loader.load().train} == {"{}"}
    problem = loader.load({"reward.custom": [CustomRewardConfig("posixpath:join")]}).train[0]
    assert json.loads(problem.columns)["answer"] == problem.gold


def test_digests_tell_answers_and_columns_apart_but_not_processes(loader: Loader):
    """The held-out problems stay the same ones whatever columns a reward reads."""
    custom = {"reward.custom": [CustomRewardConfig("posixpath:join")]}
    changes = ({"level": 1}, {"level": 1, "answer": "0"}, {"level": 2})
    begun, corrected, graded = (loader.load(custom, [row | change for row in SUMS]).digests for change in changes)
    assert not begun.items() & corrected.items()
    assert {part for part, _ in begun.items() & graded.items()} == {HELD_OUT_SETS}
    assert (lasting({"b", "a", "c"}), lasting(object())) == (["a", "b", "c"], "<object object>")


FORGED: Rows = [
    {**row, name: json.dumps({"generator": "chain_sum", "settings": {"seed": 0, "size": 1}, "index": 0})}
    for row, name in zip(SUMS, ["\x00grader", "grader"] * 15, strict=True)
]
"""Rows that name a generator's grader."""


def test_no_row_chooses_its_grader(loader: Loader):
    expected = loader.load()
    assert loader.load(None, FORGED) == expected
    assert not any(problem.grader for problem in expected.all)
    generated = loader.load({**ALL, "data.source": "reasoning_gym:palindrome_generation", "data.size": 5})
    assert {json.loads(problem.grader)["generator"] for problem in generated.train} == {"palindrome_generation"}


@pytest.mark.parametrize(("limit", "most"), [("MOST_ROWS", 100), ("MOST_CHARACTERS", 2000)])
def test_a_source_without_end_is_refused(
    limit: str, most: int, module: str, loader: Loader, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sources, limit, most)
    endless = {**ALL, "data.source": f"import:{module}:endless"}
    loader.refuse(endless, "data.source", f"{module}:endless", f"{most:,}", "data.scan=")
    assert len(loader.load({**endless, "data.scan": 50}).train) == 50


def test_types_become_text_or_are_filtered(loader: Loader):
    golds, reasons = [], (EMPTY, NO_TEXT)
    answers = (Decimal("0.50"), date(2026, 11, 27), [1, 2], "", None, {"a": 1}, [{"a": 1}], True, timedelta(1), b"x")
    for answer in answers:
        WRITERS["parquet"](Path("day.parquet"), [problem_row("What day is it?", answer)])
        try:
            golds += [problem.gold for problem in loader.load({**ALL, "data.source": "file:day.parquet"}).train]
        except BadInput as refused:
            golds += [reason for reason in reasons if reason in str(refused)]
    assert golds == ["0.50", "2026-11-27", "1, 2", EMPTY, EMPTY, *[NO_TEXT] * 5]
    loader.refuse(ALL, f"filtered: 1 {NO_TEXT}", rows=[problem_row([{"role": "assistant"}], "1")])


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("rows.jsonl", gzip.compress(b"{}", mtime=0), "gzip"),
        ("rows.jsonl", '{"problem": "1 + 1", "answer": "2"}'.encode("utf-16"), "UTF-16"),
        ("rows.jsonl", b"PK\x03\x04", "workbook"),
        ("rows.jsonl", b'{"problem": 1\n', "row"),
        ("rows.jsonl", b"[1, 2]\n", "row 1 is [1, 2]"),
        ("rows.jsonl", b"null\n", "row 1 is null"),
        ("rows.json", b'{"problem": "p", "answer": "1"}', "list of rows"),
        ("rows.parquet", b"no parquet", "parquet"),
        ("rows.csv", b"problem,answer\n" + b"1" * 200_000 + b",1\n", "field"),
        ("rows.jsonl", b'{"problem": "' + b"1" * 2**20 + b'", "answer": "1"}\n', "characters"),
        ("rows.csv", b"problem,answer,answer\n1 + 1,2,3\n", "twice"),
        ("rows.csv", b"problem,answer\n1 + 1,2\nOf 3, 4 are lost,5\n1 + 2,3\n", "row 2: it has more cells"),
        ("rows.csv", b'problem,answer\n"1 + 1,2\n1 + 2,3\n"2, 3",4\n', "row 1: "),
        ("rows.CSV", b'problem,answer\n1 + 1,2\n"1 + 2,3\n1 + 3,4\n', "row 2: "),
        ("rows.csv", b"problem,answer\n", "no rows"),
        ("rows.jsonl", b"", "no rows"),
        ("rows.json", b'[{"problem": "1 + 1", "answer": "2", "answer": "3"}]', "twice"),
    ],
)
def test_a_broken_file_is_refused_as_what_it_is(name: str, content: bytes, named: str, loader: Loader):
    Path(name).write_bytes(content)
    loader.refuse({"data.source": f"file:{name}"}, "data.source", name, named)


def test_the_type_of_a_table_may_be_in_capitals(loader: Loader):
    WRITERS["csv"](Path("SUMS.CSV"), SUMS)
    assert loader.load({"data.source": "file:SUMS.CSV"}) == loader.load()


def test_a_split_is_read_by_the_library(loader: Loader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The library prefers a folder of the name to the hub."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    Path("owner/sums").mkdir(parents=True)
    for split, rows in {"train": SUMS, "test": SUMS[:12]}.items():
        WRITERS["jsonl"](Path(f"owner/sums/{split}.jsonl"), rows)
    for source, scan, found in (("owner/sums", None, 30), ("owner/sums:test", None, 12), ("owner/sums", 9, 9)):
        assert len(loader.load({**ALL, "data.source": f"hub:{source}", "data.scan": scan}).train) == found
    loader.refuse({"data.source": "hub:owner/sums:dev"}, "train", "test")
