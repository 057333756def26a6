"""`checkpoint.mirror` and `run.restore`: looked at before a run starts, and completed after it has ended."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from actors.mirror.courier import Courier
from actors.mirror.mirror import POINTER, Mirror
from actors.mirror.restore import restore
from actors.mirror.store import Store
from actors.storage.run_record import RunRecord
from conf.errors import BadInput, in_brief
from conf.schema import Config

ANSWER_S = 60.0
"""Seconds in which a mirror has to show that it can be written to."""

ENDING_S = 600.0
"""Seconds that the last copy may take, after the end of the budget; the machine may cost by the minute."""

PROBE = ".probe"


def make_courier(config: Config, run: RunRecord) -> Courier | None:
    """Return what mirrors a run behind it; None if nothing is to."""
    return Courier(_mirror(config, run), run.checkpoints) if config.checkpoint.mirror else None


def check_mirror(config: Config) -> None:
    """Raise BadInput if the mirror cannot be written to, or holds another run of this name."""
    url, name = config.checkpoint.mirror, config.run.name
    if not url:
        return
    run, store = RunRecord(Path(config.run.folder) / name), Store(url, name)

    def look() -> Any:
        store.write(PROBE, b"a run looks whether it can write here\n")
        store.delete(PROBE)
        return store.document(POINTER)

    pointer, fault = attempt(look, ANSWER_S)
    if fault:
        raise BadInput(f"checkpoint.mirror={url}: cannot be written to ({fault}); make that possible, or leave it out")
    known = run.identity() if run.exists else None
    if pointer and not config.run.overwrite and pointer.get("identity") != known:
        raise BadInput(
            f"checkpoint.mirror={url}: has another run {name!r}, which would be lost; go on with that one by"
            f" run.restore={url}, or give run.name=OTHER or another mirror"
        )


def bring_back(config: Config) -> str:
    """Make the run's folder from what `run.restore` names, unless it is here. Return what was done.

    Raises BadInput if there is no such run, or if the folder is that of another.
    """
    url, name = config.run.restore, config.run.name
    folder = Path(config.run.folder) / name
    run, store = RunRecord(folder), Store(url, name)
    pointer, fault = attempt(lambda: store.document(POINTER), ANSWER_S)
    if fault:
        raise BadInput(f"run.restore={url}: cannot be read ({fault}); make that possible, or leave it out")
    if run.exists:
        if pointer and pointer.get("identity") != run.identity():
            raise BadInput(
                f"run.restore={url}: has another run {name!r} than {folder}; move that away, or leave it out"
            )
        return f"{folder} is here: it goes on from its own checkpoints"
    if pointer is None and url.rstrip("/") == config.checkpoint.mirror.rstrip("/"):
        return f"{store.url} has no run yet: it begins"
    if folder.exists() and any(folder.iterdir()):
        raise BadInput(f"{folder} is not the folder of a run: move it away, to have it restored from {url}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    _, fault = attempt(lambda: restore(store, folder), None)
    if fault:
        raise BadInput(f"run.restore={url}: cannot be read ({fault}); make that possible, or leave it out")
    return f"Restored {folder} from {store.url}"


def copy_ending(config: Config, folder: Path) -> str:
    """Copy what there is at the end of a run, the report with it. Return what came of it: no run fails for that."""
    mirror = _mirror(config, RunRecord(folder))
    _, fault = attempt(mirror.copy, ENDING_S)
    place = f"{config.checkpoint.mirror.rstrip('/')}/{config.run.name}"
    if fault:
        return f"Mirror: the end of the run is not in {place} ({fault}); what was copied before is whole"
    return f"Mirror: {place}"


def attempt(work: Callable[[], Any], seconds: float | None) -> tuple[Any, str]:
    """Do work of a library that may raise anything or hang. Return its result, and what went wrong, empty if nothing.

    BadInput is raised as it is.
    """
    results: list[Any] = []
    faults: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            faults.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if faults and isinstance(faults[0], BadInput):
        raise faults[0]
    if faults:
        return None, in_brief(faults[0])
    return (results[0], "") if results else (None, f"no answer within {seconds:g} s")


def _mirror(config: Config, run: RunRecord) -> Mirror:
    return Mirror(run, Store(config.checkpoint.mirror, config.run.name, config.checkpoint.mirror_mb_s))
