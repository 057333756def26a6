from pathlib import Path

import pytest

from actors.storage.folders import MARK, discard, empty, foreign, is_marked, mark, new_folder
from actors.storage.layout import ADAPTER, CHECKPOINT, EVALUATION, RUN
from conf.errors import BadInput
from tests.conftest import ROOT


def test_nothing_else_deletes_trees() -> None:
    """But a process its own temporary folders, when it is ended by a signal."""
    product = (
        file for part in ("actors", "conf", "launch", "learner", "rewards") for file in (ROOT / part).rglob("*.py")
    )
    texts = {file.name: file.read_text().replace("on_leave(partial(shutil.rmtree,", "") for file in product}
    assert [name for name, text in texts.items() if "rmtree" in text] == ["folders.py"]


OURS = f"""config.yaml .{MARK}.tmp checkpoints/.update-000012.0123abcd.tmp/adapter/.tmp1ReWVE checkpoints/latest
checkpoints/update-000012/adapter/adapter_model.safetensors checkpoints/refused-update-000012/manifest.json
evaluation/samples/aime24-base.jsonl validation-0.json"""
THEIRS = """thesis.tex checkpoints/update-000012/thesis.tex checkpoints/update-000012/adapter/config.yaml /config.yaml
checkpoints/kept-update-000012/manifest.json samples/../config.yaml wandb/run-1/../../../x"""


def test_files_of_a_run_are_known_by_name() -> None:
    assert [path for path in OURS.split() if not RUN.knows(path)] == []
    assert [path for path in (*THEIRS.split(), "") if RUN.knows(path)] == []


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def test_what_is_ours_is_deleted_and_links_are_not_followed(tmp_path: Path) -> None:
    elsewhere = fill(tmp_path / "elsewhere", "adapter_config.json")
    checkpoint = fill(tmp_path / "update-000001", "adapter/adapter_config.json", "learner.json")
    (checkpoint / "manifest.json").symlink_to(elsewhere / "adapter_config.json")
    assert discard(checkpoint, CHECKPOINT) is None
    assert discard(checkpoint, CHECKPOINT) is None
    assert [*tmp_path.rglob("*")] == [elsewhere, elsewhere / "adapter_config.json"]


@pytest.mark.parametrize("how", ["file", "link to a folder", "folder is a link"])
def test_nothing_is_deleted_beside_what_is_not_ours(tmp_path: Path, how: str) -> None:
    elsewhere = fill(tmp_path / "elsewhere", "adapter_config.json")
    folder = fill(tmp_path / "policy", "adapter_config.json", *(["thesis.tex"] if how == "file" else []))
    if how == "link to a folder":
        (folder / "adapter_model").symlink_to(elsewhere)
    elif how == "folder is a link":
        folder = tmp_path / "link"
        folder.symlink_to(elsewhere)
    before = {*tmp_path.rglob("*")}
    other = foreign(folder, ADAPTER)
    assert other is not None
    assert discard(folder, ADAPTER) == empty(folder, ADAPTER) == other
    with pytest.raises(BadInput, match=other.name), new_folder(folder, ADAPTER):
        pass
    assert {*tmp_path.rglob("*")} == before


def test_mark_says_what_a_folder_is(tmp_path: Path) -> None:
    mark(tmp_path, RUN.kind)
    assert is_marked(tmp_path, RUN)
    assert not is_marked(tmp_path, EVALUATION)
    (tmp_path / MARK).write_text("[")
    assert not is_marked(tmp_path, RUN)
