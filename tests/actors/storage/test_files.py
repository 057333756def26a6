from pathlib import Path

import pytest

from actors.storage.files import MANIFEST, damage, replace_text, seal


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "weights").write_bytes(b"weights")
    (tmp_path / "facts.json").write_text("{}")
    seal(tmp_path)
    return tmp_path


def test_sealed_folder_is_whole(sealed: Path) -> None:
    assert damage(sealed) is None


def test_every_kind_of_damage_is_named(sealed: Path) -> None:
    weights = sealed / "adapter" / "weights"
    weights.write_bytes(b"weighty")
    assert damage(sealed) == "adapter/weights has another content than was written"
    weights.write_bytes(b"weight")
    assert damage(sealed) == "adapter/weights has 6 bytes instead of 7"
    weights.unlink()
    assert damage(sealed) == "adapter/weights is missing"
    (sealed / MANIFEST).write_text('{"adapter')
    assert "manifest.json cannot be read" in str(damage(sealed))
    (sealed / MANIFEST).write_text("[1]")
    assert "manifest.json cannot be read" in str(damage(sealed))
    (sealed / MANIFEST).unlink()
    assert "manifest.json cannot be read" in str(damage(sealed))


def test_text_is_replaced_as_a_whole(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    replace_text(file, "old")
    replace_text(file, "new")
    assert file.read_text() == "new"
    assert list(tmp_path.iterdir()) == [file]


def test_folder_that_was_changed_on_purpose_can_be_sealed_anew(sealed: Path) -> None:
    (sealed / "facts.json").write_text('{"more": 1}')
    seal(sealed)
    assert damage(sealed) is None
