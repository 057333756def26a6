"""Remote checkpoints: copies a run's folder to a URL that fsspec reaches, and restores it from there.

Each copy is a folder `copy-…` with a manifest, which is written first and so names every file that may be there.
`remote.json`, which names the copy that counts, is written last: nobody takes half a copy for a whole one. Earlier
copies of the run are deleted, unless they have other files than their manifest names.
"""

import json
import os
import re
import shutil
import time
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from typing import Annotated, Any, Literal, cast, get_args

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem
from pydantic import Field

from actors.storage.checkpoints import NAME, target
from actors.storage.documents import FormattedDocument
from actors.storage.fields import Digest
from actors.storage.files import MANIFEST, MARK, damage, read_optional, seal, sync
from actors.storage.folders import beside, delete, drop_leftovers, mark, new_folder
from actors.storage.run_record import RunRecord
from actors.worker import Worker
from conf.errors import BadInput
from conf.parsing import parse_json
from conf.schema import Config

POINTER = "remote.json"

COPY = re.compile(r"copy-[0-9a-f]{16}")
"""Pattern of a copy's name."""

LOCAL = {MARK, "adapters", "checkpoints", "ray-session", "wandb"}
"""Entries of a run folder that belong to this machine, or are copied in another way."""

PAUSE_S, LONGEST_PAUSE_S, UPLOAD_S = 15.0, 600.0, 3600.0
"""Seconds before a failed copy is tried again (first, doubled after each failure; longest), and of one that hangs."""

Link = Literal["latest", "best"]


class RemoteState(FormattedDocument):
    """remote.json: identity of the run, the folder of the copy that counts, and the links among its checkpoints."""

    identity: Digest | None = None
    folder: Annotated[str, Field(pattern=f"^{COPY.pattern}$")]
    links: dict[Link, Annotated[str, Field(pattern=f"^{NAME.pattern}$")]]


class Remote:
    """The copies of one run under a URL. The methods raise any error of the URL's library."""

    def __init__(self, url: str, name: str) -> None:
        """Raises BadInput for a URL whose kind cannot be used here."""
        self.url = f"{url.rstrip('/')}/{name}"
        try:
            self._files, self._root = url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            raise BadInput(f"{url}: cannot be used here ({error}); install its package, or give another URL") from None
        self.folder = Path(self._root).resolve() if isinstance(self._files, LocalFileSystem) else None
        """The folder on a mounted disk; None for any other URL."""

    def state(self) -> RemoteState | None:
        """Return the remote state, None without one. Raises BadInput if it cannot be ours."""
        self._files.invalidate_cache()
        try:
            text = self._files.cat_file(f"{self._root}/{POINTER}").decode(errors="replace")
        except FileNotFoundError:
            return None
        return cast(RemoteState, parse_json(text, RemoteState, f"{self.url}/{POINTER}", "do not use it"))

    def try_out(self) -> RemoteState | None:
        """Check that a file can be written and deleted. Return the state. Raises BadInput if there are other files."""
        state, file = self.state(), f"{self._root}/.{token_hex(8)}"
        names, ours = [] if state else self._names(), r"(copy-|\.|\.copy-)[0-9a-f]{16}"  # of a killed process, too
        if others := [name for name in names if not re.fullmatch(ours, name)]:
            raise BadInput(
                f"{self.url} has {others[0]}, which belongs to no remote checkpoints: give another URL, or"
                " run.name=OTHER"
            )
        if self.folder:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._files.pipe_file(file, b"a run looks whether it can write here\n")
        self._files.rm_file(file)
        return state

    def put(self, run: RunRecord) -> None:
        """Copy the run as it stands. The copy before counts until this one is whole, and stays until the next one: a
        reader may be at it. Others are deleted first, so that what failed copies have left takes no room.
        """
        before, name, place = self.state(), f"copy-{token_hex(8)}", run.path / "remote"
        drop_leftovers(place)
        snapshot = beside(place)
        try:
            links = _take(run, snapshot)
            seal(snapshot)
            manifest = json.loads((snapshot / MANIFEST).read_text())
            for other in self._names():
                if COPY.fullmatch(other) and other != (before and before.folder):
                    self._delete(other, manifest["identity.json"])
            copy = f"{self._root}/{name}"
            for folder in {f"{copy}/{path}".rpartition("/")[0] for path in (MANIFEST, *manifest)}:
                self._files.makedirs(folder, exist_ok=True)
            for path in (MANIFEST, *manifest):  # one by one, since `put` takes [brackets] for a pattern
                self._files.put_file(str(snapshot / path), f"{copy}/{path}")
        finally:
            delete(snapshot)
        state = RemoteState(identity=run.identity(), folder=name, links=links)
        self._files.cat_file(f"{copy}/{MANIFEST}")  # raises if another process of the run has deleted the copy
        self._files.pipe_file(f"{self._root}/.{name}", json.dumps(state.content).encode())
        self._files.mv(f"{self._root}/.{name}", f"{self._root}/{POINTER}")

    def get(self, folder: Path) -> None:
        """Restore a run's folder, whole or not at all. Raises BadInput if there is no run, or if its content is
        damaged.
        """
        if (state := self.state()) is None:
            raise BadInput(f"there is no run at {self.url}: give the URL that checkpoint.remote had")
        with new_folder(folder) as made:
            made.chmod(0o700)
            copy = f"{self._root}/{state.folder}/"
            for name in (path.removeprefix(copy) for path in self._files.find(copy)):
                if ".." not in name.split("/"):  # a bucket may have such a name
                    Path(f"{made}/{name}").parent.mkdir(parents=True, exist_ok=True)
                    self._files.get_file(copy + name, f"{made}/{name}")
            if fault := damage(made):
                raise BadInput(f"{self.url}/{state.folder} is not as it was sealed ({fault}): restore it there")
            for link, name in state.links.items():
                (made / "checkpoints" / link).symlink_to(name)
            (made / MANIFEST).unlink()
            for path in made.rglob("*"):
                sync(path)
            mark(made, "run")

    def _delete(self, name: str, identity: dict[str, Any]) -> None:
        """Delete a copy of the run, if it has no other files than its manifest names. identity: of the run's file."""
        copy = f"{self._root}/{name}"
        there = {path.removeprefix(f"{copy}/") for path in self._files.find(copy)}
        with suppress(ValueError):  # of a half-written manifest
            manifest = json.loads(self._files.cat_file(f"{copy}/{MANIFEST}")) if MANIFEST in there else {}
            if manifest.get("identity.json") == identity and there <= {MANIFEST, MARK, *manifest}:
                self._files.rm(copy, recursive=True)

    def _names(self) -> list[str]:
        """Return the names in the run's folder."""
        try:
            return [path.rstrip("/").rpartition("/")[2] for path in self._files.ls(self._root, detail=False)]
        except FileNotFoundError:
            return []


def _take(run: RunRecord, snapshot: Path) -> dict[Link, str]:
    """Fill a folder with the latest and the best checkpoint of a run, and with its other files without LOCAL.

    The checkpoints' files are hard links if possible: they stay if a checkpoint is deleted. Return its name by link.
    """
    links = {link: place.name for link in get_args(Link) if (place := target(run.checkpoints.folder / link))}
    top = str(run.path)
    for name in {*links.values()}:  # first: no history is older than its checkpoint
        place, made = run.checkpoints.folder / name, snapshot / "checkpoints" / name
        for path in (MANIFEST, *read_optional(place / MANIFEST, dict[str, Any])):
            (made / path).parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(place / path, made / path)
            except OSError:  # some disks have no hard links
                shutil.copyfile(place / path, made / path)

    def left_out(place: str, names: list[str]) -> set[str]:
        paths = {name: Path(place, name) for name in names}
        other = {name for name, path in paths.items() if path.is_symlink() or not (path.is_file() or path.is_dir())}
        hidden = {name for name in names if name.startswith(".") and name != MARK}
        return hidden | other | (LOCAL if place == top else set())

    shutil.copytree(top, snapshot, ignore=left_out, dirs_exist_ok=True)
    return links


class RemoteCheckpoints:
    """Copies a run at each new checkpoint. The run never waits, and no failure stops it. worker: counts failures."""

    def __init__(self, config: Config, run: RunRecord) -> None:
        self.worker = Worker("remote checkpoints", patience_s=UPLOAD_S)
        self._run, self._url, self._name = run, config.checkpoint.remote, config.run.name
        self._remote: Remote | None = None  # made in the thread, since some libraries connect at once
        self._copied: object = None  # path and time of a checkpoint, which a rollback may make anew
        self._pause_s, self._next = PAUSE_S, 0.0

    def look(self) -> None:
        """Have a new checkpoint copied, unless a copy is being made or has just failed."""
        latest = self._run.checkpoints.latest
        found = latest and (latest, (latest / MANIFEST).stat().st_mtime_ns)
        if found not in (None, self._copied) and self.worker.idle and time.monotonic() >= self._next:
            self.worker.put(self._copy, found)

    def _copy(self, latest: object) -> None:
        try:
            self._remote = self._remote or Remote(self._url, self._name)
            self._remote.put(self._run)
        except Exception:  # of any file system: the next try waits longer
            self._next = time.monotonic() + self._pause_s
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
            raise
        self._copied, self._pause_s = latest, PAUSE_S
