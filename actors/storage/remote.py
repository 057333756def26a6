"""Remote checkpoints: copies a run's folder to a URL that fsspec reaches, and restores it from there.

`remote.json` names every file of one state of the run and is written last. Each `put` writes into a folder of its own
and never into one that `remote.json` names, so that a reader sees one whole state. Only files that `remote.json` has
named are deleted there.
"""

import hashlib
import json
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from io import BytesIO
from pathlib import Path
from typing import IO, Annotated, Any, Literal, get_args

from pydantic import Field

from actors.storage.checkpoints import target
from actors.storage.documents import Document, FormattedDocument
from actors.storage.fields import Count, Digest
from actors.storage.files import MANIFEST, damage, digest, read_optional, sync
from actors.storage.folders import MARK, new_folder
from actors.storage.layout import CHECKPOINT, RUN
from actors.storage.run_record import RunRecord
from conf.errors import BadInput
from conf.load import RECORD
from conf.parsing import parse_json

POINTER = "remote.json"

CHUNK = 2**20
"""Bytes per read or write, after which another thread sees progress."""

LOCAL = {"adapters", "checkpoints", "ray-session", "wandb"}
"""Entries of a run folder that belong to this machine, or are put in another way."""

Link = Literal["latest", "best"]


class RemoteFile(Document):
    """A file in remote.json. place: folder of the `put` that has written it."""

    place: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    bytes: Count
    blake2b: Digest


class RemoteState(FormattedDocument):
    """remote.json: identity of the run, its files by path, the links among its checkpoints. others: files to delete."""

    identity: Digest | None = None
    files: dict[str, RemoteFile]
    links: dict[Link, str]
    others: list[Annotated[str, Field(pattern=r"^[0-9a-f]{16}/")]]


class Remote:
    """The files of one run under a URL. The methods raise any error of the URL's library.

    moved: bytes read and written so far, by which another thread sees progress.
    """

    def __init__(self, url: str, name: str) -> None:
        """Raises BadInput for a URL whose kind cannot be used here."""
        self.url = f"{url.rstrip('/')}/{name}"
        self.moved = 0
        try:
            from fsspec.core import url_to_fs
            from fsspec.implementations.local import LocalFileSystem

            self._files, self._root = url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            raise BadInput(f"{url}: cannot be used here ({error}); install its package, or give another URL") from None
        self.folder = Path(self._root).resolve() if isinstance(self._files, LocalFileSystem) else None
        """The folder on a mounted disk; None for any other URL."""

    def state(self) -> RemoteState | None:
        """Return the remote state, None without one. Raises BadInput if it cannot be ours."""
        self._files.invalidate_cache()
        try:
            with self._files.open(self._path(POINTER), "rb") as file:
                text = file.read().decode(errors="replace")
        except FileNotFoundError:
            return None
        where = f"{self.url}/{POINTER}"
        found: RemoteState = parse_json(text, RemoteState, where, "do not use it")
        for path in [*found.files, *(name.partition("/")[2] for name in found.others)]:
            if not RUN.knows(path):
                raise BadInput(f"{where} names {path!r}, which is not a file of a run: do not use it")
        return found

    def try_out(self) -> RemoteState | None:
        """Check that a file can be written and deleted. Return the state. Raises BadInput if there are other files."""
        if (state := self.state()) is None:
            with suppress(FileNotFoundError):
                for other in self._files.ls(self._root, detail=False):
                    raise BadInput(
                        f"{self.url} has {other.rstrip('/').rpartition('/')[2]}, which belongs to no remote"
                        " checkpoints: give another URL, or run.name=OTHER"
                    )
        name = f".{secrets.token_hex(8)}"
        self._make_folder(name)
        self._files.pipe_file(self._path(name), b"a run looks whether it can write here\n")
        self._files.rm_file(self._path(name))
        return state

    def put(self, run: RunRecord) -> None:
        """Copy the run as it stands. After a failure the earlier state remains, and the next call cleans up."""
        before, place = self.state() or RemoteState(files={}, links={}, others=[]), secrets.token_hex(8)
        for name in before.others:
            with suppress(FileNotFoundError):
                self._files.rm_file(self._path(name))
        with ExitStack() as opened:
            links, sealed = _open_checkpoints(run, opened)  # first: no history is older than its checkpoint
            paths = [*sealed, *_small_files(run)]
            self._point(before.model_copy(update={"others": [f"{place}/{path}" for path in paths]}))
            files = {path: self._put(place, path, sealed.get(path) or _read(run.path / path), before) for path in paths}
        now = {_name(path, entry) for path, entry in files.items()}
        others = [name for path, entry in before.files.items() if (name := _name(path, entry)) not in now]
        self._point(RemoteState(identity=run.identity(), files=files, links=links, others=others))

    def get(self, folder: Path) -> None:
        """Restore a run's folder, whole or not at all. Raises BadInput if there is no run, or if its content is
        damaged.
        """
        if (state := self.state()) is None or RECORD not in state.files:
            raise BadInput(f"there is no run at {self.url}: give the URL that checkpoint.remote had")
        with new_folder(folder) as made:
            made.chmod(0o700)
            self._get(state, made)

    def _get(self, state: RemoteState, folder: Path) -> None:
        checkpoints = RunRecord(folder).checkpoints
        checkpoints.folder.mkdir()
        for path, entry in state.files.items():
            file = folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("xb") as content:
                for part in self._parts(_name(path, entry), entry.bytes):
                    content.write(part)
            sync(file)
            if digest(file) != entry.blake2b:
                raise BadInput(
                    f"{self.url}/{_name(path, entry)} has another content than was written: restore it there"
                )
        for checkpoint in checkpoints.all:
            if fault := damage(checkpoint):
                raise BadInput(f"{self.url}: {checkpoint.name} is not as it was sealed ({fault}): restore it there")
        for link, name in state.links.items():
            if checkpoints.folder / name not in checkpoints.all:
                raise BadInput(f"{self.url}/{POINTER} names {name!r}, which is not a checkpoint there: do not use it")
            (checkpoints.folder / link).symlink_to(name)

    def _put(self, place: str, path: str, source: "Source", before: RemoteState) -> RemoteFile:
        """Put a file unless the earlier state has it. Return its entry."""
        content, size, content_digest = source
        known = before.files.get(path)
        if known and (known.bytes, known.blake2b) == (size, content_digest):
            return known
        self._make_folder(f"{place}/{path}")
        with self._files.open(self._path(f"{place}/{path}"), "wb") as file:
            while part := content.read(CHUNK):
                file.write(part)
                self.moved += len(part)
        return RemoteFile(place=place, bytes=size, blake2b=content_digest)

    def _parts(self, name: str, size: int) -> Iterator[bytes]:
        """Yield the parts of a file, at most one part beyond its size."""
        with self._files.open(self._path(name), "rb") as file:
            while size >= 0 and (part := file.read(CHUNK)):
                self.moved += len(part)
                size -= len(part)
                yield part

    def _point(self, state: RemoteState) -> None:
        """Write remote.json in one step. Object stores show only whole files."""
        text = json.dumps(state.content, indent=1).encode()
        if self.folder is None:
            self._files.pipe_file(self._path(POINTER), text)
        else:
            self._make_folder(POINTER)
            self._files.pipe_file(self._path(f"{POINTER}.tmp"), text)
            self._files.mv(self._path(f"{POINTER}.tmp"), self._path(POINTER))
        self.moved += len(text)

    def _make_folder(self, name: str) -> None:
        if self.folder is not None:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            self.folder.mkdir(mode=0o700, exist_ok=True)
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)

    def _path(self, name: str) -> str:
        """Return the whole path of a file. Raises BadInput if it leads elsewhere by a link."""
        if self.folder is not None and (self.folder / name).resolve() != self.folder / name:
            raise BadInput(f"{self.folder / name} leads elsewhere by a link: make it a file, or give another URL")
        return f"{self._root}/{name}"


Source = tuple[IO[bytes], int, str]
"""Content, size and BLAKE2b digest of a file."""


def _open_checkpoints(run: RunRecord, opened: ExitStack) -> tuple[dict[Link, str], dict[str, Source]]:
    """Open the files of the latest and the best checkpoint, so that they can be read even if deleted meanwhile.

    Return the checkpoints' names by link and the files by path. opened: closes the files.
    """
    places = {link: place for link in get_args(Link) if (place := target(run.checkpoints.folder / link)) is not None}
    files: dict[str, Source] = {}
    for place in {*places.values()}:
        for path, entry in read_optional(place / MANIFEST, dict[str, Any]).items():
            if not CHECKPOINT.knows(path) or (place / path).resolve() != place / path:
                raise BadInput(f"{place / MANIFEST} names {path!r}, which is not a file of a checkpoint: restore it")
            files[f"checkpoints/{place.name}/{path}"] = (
                opened.enter_context((place / path).open("rb")),
                entry["bytes"],
                entry["blake2b"],
            )
        files[f"checkpoints/{place.name}/{MANIFEST}"] = _read(place / MANIFEST)
    return {link: place.name for link, place in places.items()}, files


def _small_files(run: RunRecord) -> list[str]:
    """Return the paths of all other files that a run has written."""
    paths = (path.relative_to(run.path).as_posix() for path in sorted(run.path.rglob("*")) if path.is_file())
    return [
        path
        for path in paths
        if RUN.knows(path)
        and path.partition("/")[0] not in LOCAL
        and not (run.path / path).is_symlink()
        and ((name := Path(path).name) == MARK or not name.startswith("."))
    ]


def _read(file: Path) -> Source:
    content = file.read_bytes()
    return BytesIO(content), len(content), hashlib.blake2b(content).hexdigest()


def _name(path: str, entry: RemoteFile) -> str:
    return f"{entry.place}/{path}"
