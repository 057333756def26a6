"""The project keeps its own budget: a change that needs more lines first asks what it replaces."""

from tests.lines import budget, counted


def test_lines_of_python_are_within_their_budget() -> None:
    found, most = counted(), budget()
    assert found.keys() == most.keys()
    assert {part: found[part] for part in most if found[part] > most[part]} == {}
