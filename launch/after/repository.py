"""A model's repository on the Hugging Face Hub: checked, created and filled in one commit."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx2
from huggingface_hub import HfApi, get_session
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, RepositoryNotFoundError
from huggingface_hub.utils import validate_repo_id

from conf.errors import BadInput, in_brief

TOKEN = "HF_TOKEN"
"""Environment variable of the token, which is read nowhere else."""

SILENCE_S = 30.0
"""Seconds the hub may be silent. Its library by itself waits without end."""


def check_name(name: str) -> None:
    """Raise BadInput for a name that no repository can have, or that has no owner."""
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise BadInput(f"to={name}: {error}; give OWNER/NAME, such as me/my-model") from None
    if "/" not in name:
        raise BadInput(f"to={name}: the owner is missing; give OWNER/NAME, such as me/my-model")


class Repository:
    """A repository that may not exist yet, opened with the token in the environment."""

    def __init__(self, name: str) -> None:
        if not (token := os.environ.get(TOKEN, "").strip()):
            raise BadInput(f"to={name}: set {TOKEN} in the environment to a token of the hub that may write there")
        self.name, self._api = name, HfApi(token=token)
        get_session().timeout = httpx2.Timeout(SILENCE_S)

    def check(self, overwrite: bool) -> None:
        """Raise BadInput for a token that the hub refuses, and for a repository with files unless `overwrite`."""
        files: set[str] = set()
        with self._refusals():
            self._api.whoami()
            with suppress(RepositoryNotFoundError):
                files = {file.rfilename for file in self._api.model_info(self.name, timeout=SILENCE_S).siblings or ()}
        if files - {".gitattributes"} and not overwrite:
            raise BadInput(f"to={self.name}: has files already; give another name, or overwrite=true for a new commit")

    def licence_of(self, base: str) -> str:
        """Return the licence in the card of a model on the hub; empty if it cannot be read."""
        with suppress(BadInput), self._refusals():
            card = self._api.model_info(base, timeout=SILENCE_S).card_data
            return str((card and card.get("license")) or "")
        return ""

    def fill(self, folder: Path, message: str, private: bool) -> str:
        """Create the repository if it is missing, and upload a folder in one commit. Return the repository's URL."""
        with self._refusals():
            address = self._api.create_repo(self.name, private=private, exist_ok=True)
            self._api.upload_folder(repo_id=self.name, folder_path=folder, commit_message=message)
        return str(address)

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        """Raise BadInput for the hub's refusals, its silence, and responses that its library cannot read."""
        try:
            yield
        except (httpx2.HTTPError, OfflineModeIsEnabled, AttributeError, LookupError, TypeError, ValueError) as error:
            cause = type(error).__name__  # a transport error may quote the token
            if isinstance(error, HfHubHTTPError):
                cause = in_brief(error)
                if error.response.status_code in (401, 403):
                    cause = f"the token in {TOKEN} may not write there"
            raise BadInput(f"to={self.name}: the hub takes nothing ({cause}); correct that or try again") from None
