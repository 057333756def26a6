"""The doctor's archive of a real engine, learner and run."""

import json
import platform
import re
import subprocess
import sys
from itertools import starmap
from pathlib import Path
from typing import Any

import pytest

from microbudget_rl.conf.load import load, written
from microbudget_rl.launch.checkup.archive import UPDATES
from microbudget_rl.launch.checkup.measurement import TOKEN_IDS
from microbudget_rl.launch.plan.measurements import KEPT
from tests.e2e.conftest import TINY, write_sums
from tests.launch.test_doctor import archived


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_archive_of_a_tiny_model_has_every_phase_and_names_no_machine(boxing_model: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(boxing_model)
    model.resize_token_embeddings(TOKEN_IDS[1])
    for part in (model, AutoTokenizer.from_pretrained(boxing_model)):
        part.save_pretrained("tiny")
    write_sums(Path("sums.jsonl"))
    own = {"device": "cpu", "model.path": "tiny", "data.source": "file:sums.jsonl", **TINY}
    here = ["conf=quickstart", *starmap(written, own.items())]
    done = subprocess.run([sys.executable, "-m", "launch.doctor", *here, "report=true"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    files = archived(here)
    assert len(files["doctor/run/metrics.jsonl"].splitlines()) == UPDATES
    assert "rollout-0 restarted" in files["doctor/run/events.jsonl"]
    for part in ("at the longest context", "at the same time", "adapter check at the start", "KV cache size"):
        assert part in files["doctor/screen.txt"]
    assert json.loads(files["doctor/plan.json"])["settings"]["lora.rank"] == 8
    assert not re.search(rf"\b{re.escape(platform.node())}\b", "".join(files.values()))
    assert {path.name for path in Path(load(here).run.folder).iterdir()} == {KEPT, "doctor-quickstart.tar.gz"}
