import csv

import pytest

from conf.load import FOLDER, load
from rewards.verify import verify
from tests.benches.mixed import table


@pytest.mark.parametrize("name", ["sums", "words"])
def test_the_problems_of_the_recipe_are_made_here_and_their_answers_graded_right(name: str) -> None:
    rows = table(name)
    with (FOLDER / f"mixed_{name}.csv").open() as file:
        assert [(row["problem"], int(row["answer"])) for row in csv.DictReader(file)] == rows
    assert len({problem for problem, _ in rows}) == len(rows) >= 2000
    assert not {example.problem for example in load([f"conf=mixed_{name}"]).data.few_shot} & {text for text, _ in rows}
    assert all(verify(str(answer), f"\\boxed{{{answer}}}").score == 1.0 for answer in {answer for _, answer in rows})
