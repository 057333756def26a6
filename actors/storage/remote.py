"""Remote checkpoints: copies a run's folder to a URL that fsspec reaches, and restores it from there.

Each copy is a folder of its own, whose name begins with the run's identity. No copy of another run is ever deleted, and
none with a file that its manifest does not name.
`remote.json`, which names the copy that counts, is written last: nobody takes half a copy for a whole one.
"""

import json
import os
import shutil
import time
from pathlib import Path
from secrets import token_hex
from typing import Annotated, Any, Literal, cast, get_args

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem
from pydantic import Field

from microbudget_rl.actors.storage.checkpoints import NAME, target
from microbudget_rl.actors.storage.documents import FormattedDocument
from microbudget_rl.actors.storage.files import MANIFEST, MARK, damage, seal, sync
from microbudget_rl.actors.storage.folders import beside, delete, drop_leftovers, mark, new_folder
from microbudget_rl.actors.storage.run_record import RunRecord
from microbudget_rl.actors.worker import Worker
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.parsing import parse_json
from microbudget_rl.conf.schema import Config

POINTER = "remote.json"

LOCAL = {MARK, "adapters", "checkpoints", "ray-session", "wandb"}
"""Entries of a run folder that belong to this machine, or are copied in another way."""

PAUSE_S, UPLOAD_S = 60.0, 3600.0
"""Seconds before a failed copy is tried again, and of one that hangs."""

Link = Literal["latest", "best"]


class RemoteState(FormattedDocument):
    """remote.json: the folder of the copy that counts, and the links among its checkpoints."""

    folder: Annotated[str, Field(pattern="^copy-[0-9a-f]+-[0-9a-f]{8}$")]
    links: dict[Link, Annotated[str, Field(pattern=f"^{NAME.pattern}$")]]

    @property
    def identity(self) -> str:
        """The identity of the run."""
        return self.folder.split("-")[1]


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
        if not state and (others := [name for name in self._names() if not name.startswith((".", "copy-"))]):
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
        before, own, place = self.state(), f"copy-{run.identity()}-", run.path / "remote"
        for other in self._names():
            if other.startswith(own) and other != (before and before.folder) and self._is_ours(other):
                self._files.rm(f"{self._root}/{other}", recursive=True)
        name = own + token_hex(4)
        copy = f"{self._root}/{name}"
        drop_leftovers(place)
        snapshot = beside(place)
        try:
            links = _take(run, snapshot)
            seal(snapshot)
            for path in (MANIFEST, *json.loads((snapshot / MANIFEST).read_text())):
                self._files.makedirs(f"{copy}/{path}".rpartition("/")[0], exist_ok=True)
                self._files.put_file(str(snapshot / path), f"{copy}/{path}")  # `put` takes [brackets] for a pattern
        finally:
            delete(snapshot)
        self._files.cat_file(f"{copy}/{MANIFEST}")  # raises if another process of the run has deleted the copy
        content = RemoteState(folder=name, links=links).content
        self._files.pipe_file(f"{self._root}/.{name}", json.dumps(content).encode())
        self._files.mv(f"{self._root}/.{name}", f"{self._root}/{POINTER}")

    def get(self, folder: Path) -> None:
        """Restore a run's folder, whole or not at all. Raises BadInput if there is no run, or a damaged one."""
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

    def _is_ours(self, name: str) -> bool:
        """Whether a copy has no other files than its manifest names, which is put first."""
        copy = f"{self._root}/{name}"
        there = {path.removeprefix(f"{copy}/") for path in self._files.find(copy)} - {MANIFEST}
        try:
            return not there or there <= {*json.loads(self._files.cat_file(f"{copy}/{MANIFEST}"))}
        except (FileNotFoundError, ValueError):
            return False

    def _names(self) -> list[str]:
        """Return the names in the run's folder."""
        try:
            return [path.rstrip("/").rpartition("/")[2] for path in self._files.ls(self._root, detail=False)]
        except FileNotFoundError:
            return []


def _take(run: RunRecord, snapshot: Path) -> dict[Link, str]:
    """Fill a folder with the latest and the best checkpoint of a run, and with its other files without LOCAL and
    hidden ones. Return the checkpoint's name by link.
    """

    def left_out(place: str, names: list[str]) -> set[str]:
        paths = {name: Path(place, name) for name in names}
        other = {name for name, path in paths.items() if path.is_symlink() or not (path.is_file() or path.is_dir())}
        hidden = {name for name in names if name.startswith(".") and name != MARK}
        return other | hidden | (LOCAL if place == str(run.path) else set())

    links = {link: place.name for link in get_args(Link) if (place := target(run.checkpoints.folder / link))}
    for name in {*links.values()}:  # first: no history is older than its checkpoint
        shutil.copytree(run.checkpoints.folder / name, snapshot / "checkpoints" / name, copy_function=_link)
    shutil.copytree(run.path, snapshot, ignore=left_out, dirs_exist_ok=True)
    return links


def _link(source: str, copy: str) -> None:
    """Make a hard link, which takes no time and stays if the checkpoint is deleted. Some disks have none."""
    try:
        os.link(source, copy)
    except OSError:
        shutil.copyfile(source, copy)


class RemoteCheckpoints:
    """Copies a run at each new checkpoint. The run never waits, and no failure stops it. worker: counts failures."""

    def __init__(self, config: Config, run: RunRecord) -> None:
        self.worker = Worker("remote checkpoints", patience_s=UPLOAD_S)
        self._run, self._url, self._name = run, config.checkpoint.remote, config.run.name
        self._copied: object = None  # path and time of a checkpoint, which a rollback may make anew
        self._next = 0.0

    def look(self) -> None:
        """Have a new checkpoint copied, unless a copy is being made or has just failed."""
        latest = self._run.checkpoints.latest
        found = latest and (latest, (latest / MANIFEST).stat().st_mtime_ns)
        if found not in (None, self._copied) and self.worker.idle and time.monotonic() >= self._next:
            self.worker.put(self._copy, found)

    def _copy(self, latest: Any) -> None:
        try:
            Remote(self._url, self._name).put(self._run)  # made in the thread, since some libraries connect at once
        except Exception:  # of any file system
            self._next = time.monotonic() + PAUSE_S
            raise
        self._copied = latest
