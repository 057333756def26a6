import asyncio
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microbudget_rl.actors.models.adapters import ADAPTER_FILES
from microbudget_rl.actors.storage.checkpoints import Checkpoints
from microbudget_rl.actors.storage.files import MARK, seal
from microbudget_rl.actors.storage.folders import (
    beside,
    check_free,
    delete,
    drop_leftovers,
    entries,
    mark,
    new_folder,
    read_mark,
)
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.launch.session import admission
from microbudget_rl.launch.session.admission import take_over
from tests.conftest import ROOT

NAMES = st.sets(st.sampled_from(["config.yaml", "samples/a.jsonl", "thesis.tex", "a/b/c", ".hidden", "manifest.json"]))
"""Paths within a folder: ours by their names or not, which makes no difference."""


def fill(folder: Path, names: Iterable[str], link: Path | None = None) -> Path:
    """Write files, or make links, that have their paths as content."""
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(link) if link else (folder / name).write_text(name)
    return folder


def contents(place: Path) -> list[str]:
    return sorted(file.read_text() for file in place.rglob("*") if file.is_file() and file.name != MARK)


@settings(deadline=None)
@given(names=NAMES, kind=st.sampled_from(["", "run", "sweep"]), older=st.integers(0, 2), anew=st.booleans())
def test_nothing_in_a_folder_is_ever_lost(names: set[str], kind: str, older: int, anew: bool):
    """It is refused and untouched without the mark, and renamed as a whole with it."""
    with TemporaryDirectory() as place:
        folder = fill(Path(place, "mine"), names)
        if kind:
            mark(folder, kind)  # type: ignore[arg-type]
        for number in range(1, older + 1):
            fill(folder.with_name(f"mine.old-{number}"), ["precious"])
        before = contents(Path(place))
        if names and kind != "run":
            with pytest.raises(BadInput, match=r"run\.name=OTHER"):
                take_over(folder, "run", "the run", anew)
            assert (read_mark(folder).get("kind", ""), contents(folder)) == (kind, sorted(names))
        else:
            take_over(folder, "run", "the run", anew)
            renamed = folder.with_name(f"mine.old-{older + 1}")
            assert renamed.exists() == bool(names and anew)
            assert contents(renamed if renamed.exists() else folder) == sorted(names)
            assert read_mark(folder) == {"kind": "run"}
        admission.held.clear()
        assert contents(Path(place)) == before


@settings(deadline=None)
@given(own=NAMES, others=NAMES, linked=st.booleans(), kind=st.sampled_from(["checkpoint", "adapter", "temporary", ""]))
def test_only_what_the_program_has_made_for_itself_is_deleted(own: set[str], others: set[str], linked: bool, kind: str):
    """A folder that is sealed or whose names are known goes if nothing else is in it; links are not followed."""
    with TemporaryDirectory() as place:
        elsewhere = fill(Path(place, "elsewhere"), ["thesis.tex"])
        own = {*ADAPTER_FILES} if kind == "adapter" else own - {"manifest.json"}
        others = others - own - {"manifest.json"}
        folder = Path(place, "mine")
        folder = beside(folder) if kind == "temporary" else fill(folder, own)
        if kind == "checkpoint":
            seal(folder)
        fill(folder, others, elsewhere if linked else None)
        delete(folder, ADAPTER_FILES)
        known = kind in ("checkpoint", "adapter") or not own
        assert folder.exists() == (kind != "temporary" and not (known and not others))
        assert contents(elsewhere) == ["thesis.tex"]


def test_nothing_else_deletes_trees():
    """But a process its own temporary folders, when it is ended by a signal."""
    product = (
        file for part in ("actors", "conf", "launch", "learner", "rewards") for file in (ROOT / part).rglob("*.py")
    )
    texts = {file.name: file.read_text().replace("on_leave(partial(shutil.rmtree,", "") for file in product}
    assert [name for name, text in texts.items() if "rmtree" in text] == ["folders.py"]


def test_checkpoint_with_a_file_of_somebody_else_is_renamed(tmp_path: Path):
    checkpoints = Checkpoints(tmp_path)
    for version in (1, 2):
        seal(fill(checkpoints.path_of(version), ["coordinator.json"]))
    fill(checkpoints.path_of(2), ["thesis.tex"])
    checkpoints.return_to(0)
    asyncio.run(checkpoints.clear())
    assert entries(tmp_path) == {"update-000002.old-1"}


@pytest.mark.parametrize("there", ["nothing", "an empty folder", "files", "a file"])
def test_new_folder_is_whole_or_absent_and_replaces_nothing(tmp_path: Path, there: str):
    folder = tmp_path / "mine"
    if there == "a file":
        folder.write_text("thesis")
    elif there != "nothing":
        fill(folder, ["thesis.tex"] if there == "files" else [])
    before = contents(tmp_path)
    with pytest.raises(ZeroDivisionError), new_folder(folder) as made:
        (made / "half").write_text(str(1 / 0))
    left = beside(folder)
    drop_leftovers(folder)
    assert (contents(tmp_path), left.exists()) == (before, False)
    with new_folder(folder) as made:
        fill(made, ["whole"])
    assert contents(tmp_path) == sorted([*before, "whole"])
    assert ([path.name for path in folder.iterdir()], len([*tmp_path.iterdir()])) == (["whole"], 1 + bool(before))


def test_mark_that_is_damaged_or_of_another_kind_is_none(tmp_path: Path):
    (tmp_path / "config.yaml").touch()
    for text in ("[", "[]", '{"kind": "evaluation"}'):
        (tmp_path / MARK).write_text(text)
        with pytest.raises(BadInput, match=r"config\.yaml"):
            check_free(tmp_path, "run")
