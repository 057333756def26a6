"""The problems of conf=mixed_sums and conf=mixed_words."""

import csv

import pytest

from microbudget_rl.conf.load import FOLDER, load


@pytest.mark.parametrize("name", ["mixed_sums", "mixed_words"])
def test_problems_differ_from_each_other_and_from_the_examples_of_the_recipe(name: str):
    with (FOLDER / f"{name}.csv").open() as file:
        rows = [(row["problem"], int(row["answer"])) for row in csv.DictReader(file)]
    texts = {text for text, _ in rows}
    assert len(texts) == len(rows) >= 2000
    assert texts.isdisjoint(example.problem for example in load([f"conf={name}"]).data.few_shot)
    if name == "mixed_sums":
        assert all(sum(map(int, text.rpartition(", ")[2].split(" + "))) == answer for text, answer in rows)
