"""The project keeps its own budget: a change that needs more code first asks what it replaces."""

from tests.code_size import budget, counted, tokens

MODULE = '''"""What it is for."""

LIMIT = 3  # a comment
"""What it limits."""


def text(name: str) -> str:
    """Return it."""
    return f"{name!r:>{LIMIT}} and {len(name) + 1}"
'''


def test_code_is_within_its_budget():
    found, most = counted(), budget()
    assert found.keys() == most.keys()
    assert {part: found[part] for part in most if found[part] > most[part]} == {}


def test_prose_and_layout_are_free_and_an_f_string_is_one_token():
    limit, signature, result = "LIMIT = 3", "def text ( name : str ) -> str :", "return f''"
    assert tokens(MODULE) == sum(len(line.split()) for line in (limit, signature, result))
