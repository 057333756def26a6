"""A repository on the Hugging Face Hub: refused, created and filled in one commit."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
from huggingface_hub import HfApi, get_session
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, RepositoryNotFoundError
from huggingface_hub.utils import validate_repo_id

from conf.errors import BadInput, in_brief

TOKEN = "HF_TOKEN"

SILENCE_S = 30.0
"""Seconds that the hub may be silent; its library by itself waits without end."""

OF_THE_HUB = {".gitattributes"}
"""Files of a repository that holds nothing yet."""


def check_name(name: str) -> None:
    """Raise BadInput unless a name is that of a repository, with its owner."""
    try:
        validate_repo_id(name)
        if name.count("/") != 1:
            raise HFValidationError("it has no owner")
    except HFValidationError as error:
        raise BadInput(f"to={name}: {error}; give OWNER/NAME, such as me/my-model") from None


class Repository:
    """A model's repository, under the token in the environment. Every refusal of the hub becomes BadInput."""

    def __init__(self, name: str) -> None:
        token = os.environ.get(TOKEN, "")
        if not (token.strip() and token.isascii() and token.isprintable()):
            raise BadInput(f"to={name}: set {TOKEN} in the environment to a token of the hub that may write there")
        self.name, self._api = name, HfApi(token=token)
        get_session().timeout = httpx2.Timeout(SILENCE_S)

    def check(self, overwrite: bool) -> None:
        """Raise BadInput if the token is refused, or if something is in the repository that is not to be replaced."""
        with _refusals(self.name):
            self._api.whoami()
            try:
                siblings = self._api.model_info(self.name, timeout=SILENCE_S).siblings or ()
            except RepositoryNotFoundError:
                return
        if {file.rfilename for file in siblings} - OF_THE_HUB and not overwrite:
            raise BadInput(
                f"to={self.name}: there is a model already; give another name, or overwrite=true for a new commit there"
            )

    def licence_of(self, base: str) -> str:
        """Return the licence that a model on the hub states; empty if that cannot be read."""
        try:
            with _refusals(self.name):
                card = self._api.model_info(base, timeout=SILENCE_S).card_data
        except BadInput:
            return ""
        stated = card.get("license") if card else None
        return stated if isinstance(stated, str) else ""

    def fill(self, folder: Path, message: str, private: bool) -> str:
        """Create the repository if need be and put a folder into it by one commit. Return its address."""
        with _refusals(self.name):
            address = self._api.create_repo(self.name, private=private, exist_ok=True)
            self._api.upload_folder(repo_id=self.name, folder_path=folder, commit_message=message)
        return str(address)


@contextmanager
def _refusals(name: str) -> Iterator[None]:
    """Turn what the hub refuses, its silence and answers that are none into BadInput."""
    try:
        yield
    except HfHubHTTPError as error:
        if error.response.status_code in (401, 403):
            raise BadInput(
                f"to={name}: the hub refuses the token in {TOKEN}; give one that may write to that owner's models"
            ) from None
        raise BadInput(f"to={name}: the hub refuses ({error}); nothing was published, try again") from None
    except httpx2.TimeoutException:
        raise BadInput(f"to={name}: the hub stays silent for more than {SILENCE_S:.0f} s; try again later") from None
    except (httpx2.TransportError, OfflineModeIsEnabled) as error:
        cause = type(error).__name__
        raise BadInput(f"to={name}: the hub cannot be reached ({cause}); check the network, then try again") from None
    except (AttributeError, LookupError, TypeError, ValueError) as error:  # of a library that reads what is no answer
        raise BadInput(f"to={name}: the hub's answer cannot be read ({in_brief(error)}); try again later") from None
