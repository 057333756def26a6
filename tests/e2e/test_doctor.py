"""The doctor's archive of a real engine, learner and run."""

import platform
import re
from pathlib import Path
from typing import Any

import pytest

from microbudget_rl.launch.checkup.archive import UPDATES
from microbudget_rl.launch.checkup.measurement import DOCTOR, TOKEN_IDS
from microbudget_rl.launch.plan.measurements import KEPT
from tests.launch.test_doctor import archived


@pytest.mark.slow
def test_an_archive_has_every_phase_and_names_no_machine(start: Any, boxing_model: Path, tmp_path: Path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(boxing_model)
    model.resize_token_embeddings(TOKEN_IDS[1])
    for part in (model, AutoTokenizer.from_pretrained(boxing_model)):
        part.save_pretrained(tmp_path / "tiny")
    here = ["device=cpu", f"run.folder={tmp_path / 'runs'}", f"model.path={tmp_path / 'tiny'}"]
    process = start("quickstart", *here, "report=true", program="doctor")
    said, _ = process.communicate()
    assert process.returncode == 0, said
    files = archived(["conf=quickstart", *here])
    for name in ("run", "kill"):
        assert len(files[f"doctor/{name}/metrics.jsonl"].splitlines()) == UPDATES
    assert "rollout-0 restarted" in files["doctor/kill/events.jsonl"]
    for part in ("generates", "learns from", "adapter check at the start", f"a measurement here: {DOCTOR}"):
        assert part in files["doctor/screen.txt"]
    assert not re.search(rf"\b{re.escape(platform.node())}\b", "".join(files.values()))
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {KEPT, "doctor-quickstart.tar.gz"}
