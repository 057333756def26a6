"""Counts the tokens of Python code, which have a budget of their own in pyproject.toml."""

import ast
import io
import tokenize
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = {
    "outside_tests": ("actors", "conf", "docs", "launch", "learner", "microbudget_rl", "rewards"),
    "in_tests": ("tests",),
}
LAYOUT = {
    tokenize.COMMENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
    tokenize.INDENT,
    tokenize.NEWLINE,
    tokenize.NL,
}
"""Kinds of tokens that are not code."""


def budget() -> dict[str, int]:
    """Return the most tokens by part of the tree."""
    stated: dict[str, int] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["microbudget"]["tokens"]
    return stated


def counted() -> dict[str, int]:
    """Return the tokens of all Python files by part of the tree."""
    return {
        part: sum(tokens(file.read_text()) for folder in folders for file in (ROOT / folder).rglob("*.py"))
        for part, folders in FOLDERS.items()
    }


def tokens(source: str) -> int:
    """Return the number of tokens of a module without comments, docstrings and layout.

    An f-string is one token, as before Python 3.12, from which on it has one for each of its parts.
    """
    docstrings = {
        (statement.lineno, statement.col_offset)
        for node in ast.walk(ast.parse(source))
        if isinstance(body := getattr(node, "body", None), list)
        for statement in body
        if isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    }
    number = depth = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        kind = tokenize.tok_name[token.type]
        depth -= kind == "FSTRING_END"
        number += depth == 0 and kind != "FSTRING_END" and token.type not in LAYOUT and token.start not in docstrings
        depth += kind == "FSTRING_START"
    return number


if __name__ == "__main__":
    present = counted()
    for part, most in budget().items():
        print(f"{most - present[part]:,} tokens left {part.replace('_', ' ')}")
