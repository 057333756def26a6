"""The notebook of the quickstart, whose cells are executed here as Jupyter does: the last expression is shown.

`python -m tests.e2e.test_notebook` executes it and stores the outputs, in the time of a quiet machine.
"""

import ast
import contextlib
import io
import json
import os
import sys
import tempfile
from typing import Any

import pytest

from tests.conftest import ROOT

NOTEBOOK = ROOT / "docs" / "start" / "quickstart.ipynb"

FORMS = {"_repr_html_": "text/html", "_repr_markdown_": "text/markdown", "_repr_svg_": "image/svg+xml"}


def execute(notebook: dict[str, Any]) -> dict[str, Any]:
    """The notebook with the outputs of its cells."""
    names: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate(cell for cell in notebook["cells"] if cell["cell_type"] == "code"):
        with contextlib.redirect_stdout(io.StringIO()) as said:
            code = ast.parse("".join(cell["source"]))
            last = code.body.pop() if isinstance(code.body[-1], ast.Expr) else None
            exec(compile(code, f"<cell {number}>", "exec"), names)
            value = eval(compile(ast.Expression(last.value), f"<cell {number}>", "eval"), names) if last else None
        cell |= {"execution_count": number + 1, "outputs": []}
        if lines := relative(said.getvalue()):
            cell["outputs"] += [{"output_type": "stream", "name": "stdout", "text": lines}]
        if value is not None:
            shown = {kind: getattr(value, form)() for form, kind in FORMS.items() if hasattr(value, form)}
            data = {kind: relative(text) for kind, text in {"text/plain": repr(value), **shown}.items()}
            result = {"output_type": "execute_result", "execution_count": number + 1, "metadata": {}, "data": data}
            cell["outputs"] += [result]
    return notebook


def relative(text: str) -> list[str]:
    """Lines without the folders of this machine; Markdown escapes an underscore."""
    for folder in (f"{ROOT}/microbudget_rl/", f"{ROOT}/", f"{os.getcwd()}/", f"{os.getcwd()}/".replace("_", r"\_")):
        text = text.replace(folder, "")
    return text.replace(os.path.expanduser("~/"), "~/").splitlines(keepends=True)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_its_cells_train_and_show_a_model():
    executed = json.dumps(execute(json.loads(NOTEBOOK.read_text("utf-8"))), ensure_ascii=False)
    assert all(words in executed for words in ("Fits", "held-out", "</svg>", "adder: verified"))


def test_its_outputs_are_stored():
    cells = [cell for cell in json.loads(NOTEBOOK.read_text("utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == [*range(1, len(cells) + 1)]
    assert "</svg>" in json.dumps(cells)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        outcome = execute(json.loads(NOTEBOOK.read_text("utf-8")))
        NOTEBOOK.write_text(json.dumps(outcome, ensure_ascii=False, indent=1) + "\n", "utf-8")
        sys.exit(0)
