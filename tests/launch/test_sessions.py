from pathlib import Path

from launch.sessions import clear_session, note_session


def test_session_of_an_earlier_process_is_deleted(tmp_path: Path) -> None:
    session = tmp_path / "ray" / "session_2026-01-01_00-00-00_000000_1"
    (session / "logs").mkdir(parents=True)
    note_session(tmp_path, session)
    clear_session(tmp_path)
    assert not session.exists()
    clear_session(tmp_path)


def test_nothing_but_a_session_is_deleted(tmp_path: Path) -> None:
    precious = tmp_path / "thesis"
    precious.mkdir()
    note_session(tmp_path, precious)
    clear_session(tmp_path)
    assert precious.exists()
