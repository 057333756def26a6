"""The checkpoints of a run: folders `update-000012/` and the links `latest` and `best`.

A checkpoint contains:

`adapter/`: the adapter in plain PEFT format
`learner.safetensors`: fp32 weights and optimizer state by parameter name (`learner.training_state`)
`learner.json`: the model and settings of that state
`coordinator.json`: the state of the coordinator
`manifest.json`: size and digest of each file, by which damage is found
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from microbudget_rl.actors.storage.documents import CoordinatorState
from microbudget_rl.actors.storage.files import MANIFEST, MARK, damage, naming, read_document, seal, sync
from microbudget_rl.actors.storage.folders import beside, delete, drop_leftovers, is_marked, put_in_place, retire
from microbudget_rl.conf.errors import BadInput

NAME = re.compile(r"update-\d{6,}")
"""Pattern of a checkpoint's name. A copy that a user makes has another."""

STATE = "coordinator.json"


class Checkpoints:
    """The checkpoints in a folder. Unfinished ones have temporary names and are never read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.way_back = -1  # version that is kept for a return
        self._passing = -1

    @property
    def all(self) -> list[Path]:
        """The finished checkpoints, oldest first."""
        return sorted((each for each in self.folder.glob("update-*") if NAME.fullmatch(each.name)), key=version_of)

    @property
    def unfinished(self) -> list[Path]:
        """The checkpoints that are being written or deleted, or that a killed process has left."""
        return list(self.folder.glob(".*update-*.tmp"))

    @property
    def latest(self) -> Path | None:
        return target(self.folder / "latest")

    @property
    def best(self) -> Path | None:
        """The checkpoint that the validations have chosen, or the user by a link of that name."""
        return target(self.folder / "best")

    @property
    def result(self) -> Path | None:
        """The checkpoint that the run returns: the chosen one, without validations the latest."""
        return self.best or self.latest

    def newest_until(self, version: int) -> int:
        """Return the version of the newest checkpoint up to a version, else of the oldest; 0 without any."""
        versions = [version_of(checkpoint) for checkpoint in self.all]
        return max((found for found in versions if found <= version), default=min(versions, default=0))

    @asynccontextmanager
    async def new(self, version: int, keep_last: int, passing: bool = False, best: bool = False) -> AsyncIterator[Path]:
        """Yield a temporary folder that becomes the checkpoint of a version, `latest` and, if asked to, `best` once the
        block has succeeded.

        A thread hashes and syncs its gigabytes. If that is cancelled, the folder stays temporary.
        keep_last: number of checkpoints to keep besides the best. passing: whether the next checkpoint replaces this
        one, which `keep_last` does not count.
        """
        final = self.path_of(version)
        await asyncio.to_thread(drop_leftovers, final)
        temporary = beside(final)
        yield temporary
        await asyncio.to_thread(seal, temporary)
        replaced = retire(final)
        put_in_place(temporary, final)
        link(self.folder / "latest", final)
        if best:
            self.mark_best(version)
        await asyncio.to_thread(sync, self.folder)
        await asyncio.to_thread(_delete, replaced)
        await self.prune(keep_last, passing)

    async def prune(self, keep_last: int, passing: bool = False) -> None:
        """Delete all checkpoints but that of version 0, the latest, the best, `way_back` and the last `keep_last`.
        Arguments are as in `new`.
        """
        latest, best = (version_of(each) if each else -1 for each in (self.latest, self.best))
        versions = {version_of(each): each for each in self.all}
        lasting = [version for version in versions if version < latest and version != self._passing]
        lasting += [latest] * (not passing)
        self._passing = latest if passing else -1
        for version in versions.keys() - {0, latest, best, self.way_back, *lasting[-keep_last:]}:
            await asyncio.to_thread(_remove, versions[version])

    def mark_best(self, version: int | None) -> None:
        """Point `best` at a version's checkpoint. None: no version is chosen."""
        best = self.folder / "best"
        if version is not None:
            link(best, self.path_of(version))
        elif best.is_symlink():
            best.unlink()

    def return_to(self, version: int) -> None:
        """Set all checkpoints after a version that has one aside, for `clear`; all of them for 0 without one."""
        wanted = self.path_of(version)
        if wanted.exists():
            link(self.folder / "latest", wanted)
        else:
            (self.folder / "latest").unlink(missing_ok=True)
        for checkpoint in self.all:
            if version_of(checkpoint) > version:
                retire(checkpoint)

    async def clear(self) -> None:
        """Delete, in a thread, what is unfinished or set aside. Call it while no checkpoint is being written."""
        for each in self.unfinished:
            await asyncio.to_thread(_delete, each)

    def recover(self, refusal: Callable[[Path], str | None]) -> dict[int, str]:
        """Clean up after a killed process: make the newest usable checkpoint the latest and move newer ones aside.

        refusal: returns why an undamaged checkpoint cannot be used, or None. Return the reasons for moving checkpoints
        aside, by version. Raises BadInput if there are checkpoints but none is usable.
        """
        self._finish_replacing()
        for checkpoint in self.all:
            if is_marked(checkpoint, "temporary"):  # the process was killed in `put_in_place`
                (checkpoint / MARK).unlink()
        for unfinished in self.unfinished:
            delete(unfinished)
        latest = self.latest
        refused: dict[Path, str] = {}
        for checkpoint in reversed(self.all):
            if latest is None or version_of(checkpoint) <= version_of(latest):
                if (reason := damage(checkpoint) or refusal(checkpoint)) is None:
                    link(self.folder / "latest", checkpoint)
                    sync(self.folder)
                    break
                refused[checkpoint] = reason
        else:
            (self.folder / "latest").unlink(missing_ok=True)
            if refused:
                reasons = "; ".join(f"{checkpoint.name}: {reason}" for checkpoint, reason in refused.items())
                raise BadInput(
                    f"no checkpoint of {self.folder.parent} can be used ({reasons}): restore one from elsewhere, or "
                    f"start again with run.overwrite=true"
                )
        for checkpoint in refused:
            aside = checkpoint.with_name(f"refused-{checkpoint.name}")
            _remove(aside)
            checkpoint.rename(aside)
        return {version_of(checkpoint): reason for checkpoint, reason in refused.items()}

    def _finish_replacing(self) -> None:
        """Rename a whole checkpoint that a killed process was about to put in the place of the latest."""
        latest = self.folder / "latest"
        if latest.is_symlink() and not latest.exists():
            whole = (each for each in self.folder.glob(f".{latest.readlink()}.*.tmp") if damage(each) is None)
            if newest := max(whole, key=lambda each: (each / MANIFEST).stat().st_mtime_ns, default=None):
                put_in_place(newest, self.folder / latest.readlink())

    def path_of(self, version: int) -> Path:
        return self.folder / f"update-{version:06d}"


def _remove(checkpoint: Path) -> None:
    """Delete a checkpoint, or rename it if it has a file that its manifest does not name."""
    _delete(retire(checkpoint))


def _delete(retired: Path) -> None:
    with suppress(OSError):  # NFS, while a command copies a file; `recover` tries again
        delete(retired)


def version_of(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("update-"))


def read_state(checkpoint: Path) -> CoordinatorState:
    """Return the coordinator's part of a checkpoint. Raises BadInput if it is missing or damaged."""
    if (state := read_document(checkpoint / STATE, CoordinatorState)) is None:
        raise BadInput(f"{checkpoint} has no {STATE}: restore it")
    return state


def write_state(checkpoint: Path, state: CoordinatorState) -> None:
    """Write the coordinator's part of a checkpoint, which is not sealed yet."""
    file = checkpoint / STATE
    with naming(file):
        file.write_text(json.dumps(state.content))


def target(name: Path) -> Path | None:
    """Return the checkpoint that a link leads to, None if there is none."""
    checkpoint = name.resolve() if name.exists() else None
    return checkpoint if checkpoint and NAME.fullmatch(checkpoint.name) else None


def link(name: Path, checkpoint: Path) -> None:
    """Point a link at a checkpoint in the same folder, in one step. It is on disk once the folder is flushed."""
    fresh = name.with_name(f".{name.name}.tmp")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(checkpoint.name)
    fresh.replace(name)
