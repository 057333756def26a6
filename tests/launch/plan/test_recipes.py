"""The page that says which recipe fits which GPU."""

import pytest

from launch.plan.recipes import page
from tests.conftest import ROOT


@pytest.mark.long
def test_the_page_of_recipes_is_of_this_plan() -> None:
    """`python -m launch.plan.recipes > docs/reference/recipes.md` makes it so."""
    assert (ROOT / "docs" / "reference" / "recipes.md").read_text("utf-8") == page()
