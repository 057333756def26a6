"""Names of other projects are answered with ours."""

import re

import pytest

from conf.catalogue import elsewhere, table
from conf.errors import BadInput
from conf.load import load
from conf.pages import coming_from_page
from conf.schema import Config
from conf.settings import settings
from tests.conftest import ROOT


def test_the_table_names_our_settings() -> None:
    known, rows = {item.path for item in settings(Config)}, [*table("coming_from").values()]
    assert {ours for names in rows for ours, _ in names.values()} <= {*known, None}
    assert not known & {name for names in rows for name in names}
    assert len(elsewhere()) > 60


def test_the_page_is_of_the_table() -> None:
    """`python -m conf.pages coming-from > docs/reference/coming-from.md` makes it so."""
    assert (ROOT / "docs" / "reference" / "coming-from.md").read_text("utf-8") == coming_from_page()


def test_foreign_keys_are_answered_with_ours() -> None:
    answers = {
        "num_generations=8": "num_generations: .*rollout.samples_per_problem",
        "learner.beta=0.1": "learner.beta: .*algorithm.kl",
        "model.load_in_4bit=true": "not supported",
        "actor_rollout_ref.model.path=x": r"model\.path: .* use model\.path",
    }
    with pytest.raises(BadInput) as caught:
        load(["conf=quickstart", *answers])
    assert [answer for answer in answers.values() if not re.search(answer, str(caught.value))] == []
