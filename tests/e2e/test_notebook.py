"""The notebook of the quickstart, executed by a Jupyter of its own in this clone."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

NOTEBOOK = ROOT / "docs" / "start" / "quickstart.ipynb"
JUPYTER = ("nbclient==0.11.0", "ipykernel==7.4.0")
BUDGET_MIN = 3.5

EXECUTE = """
import sys, nbclient, nbformat
notebook = nbformat.read(sys.argv[1], 4)
nbformat.validate(notebook)
try:
    nbclient.NotebookClient(notebook, timeout=900, resources={"metadata": {"path": sys.argv[2]}}).execute()
finally:
    nbformat.write(notebook, sys.argv[1])
"""


@pytest.fixture
def jupyter(tmp_path: Path) -> Path:
    """The Python of an environment with what executes notebooks, which nothing else here needs."""
    environment = tmp_path / "jupyter"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    python = environment / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", *JUPYTER], check=True, timeout=300)
    return python


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_its_cells_train_and_show_a_model(jupyter: Path, tmp_path: Path) -> None:
    if not (ROOT / ".venv" / "setup.stamp").exists():
        pytest.skip("this clone has not been set up")
    before = (ROOT / ".venv" / "setup.log").stat().st_mtime
    text = NOTEBOOK.read_text("utf-8")
    short = f"run.name={{RUN}} budget.minutes={BUDGET_MIN} run.folder={tmp_path} dashboard.port=0"
    text = text.replace("run.name={RUN}", short).replace("runs/{RUN}", f"{tmp_path}/{{RUN}}")
    executed = tmp_path / "executed.ipynb"
    executed.write_text(text, "utf-8")
    ended = subprocess.run([jupyter, "-c", EXECUTE, str(executed), str(NOTEBOOK.parent)], timeout=1200)
    assert (ROOT / ".venv" / "setup.log").stat().st_mtime == before, "nothing is installed twice"
    cells = [cell for cell in json.loads(executed.read_text("utf-8"))["cells"] if cell["cell_type"] == "code"]
    shown = ["".join(json.dumps(output, ensure_ascii=False) for output in cell["outputs"]) for cell in cells]
    assert ended.returncode == 0, "\n".join(shown)
    assert "Fits" in shown[3]
    assert "held-out pass@1" in shown[4]
    assert "held-out pass@1" in shown[5]
    assert "of all responses" in shown[6]
    assert "held-out pass@1" in shown[7]
    assert "15 problems to train on, 5 held out" in shown[8]
