"""The Hugging Face Hub at the door: it is asked once, and not waited for."""

from conf.errors import BadInput

HUB_TIMEOUT_S = 10.0
"""Seconds for the hub's first answer; its library by itself waits for ever, or tries six times in half a minute."""


class HubAway(Exception):
    """The hub cannot be reached, or answers nonsense. Its text is the kind of error."""


def newest(kind: str, name: str) -> str:
    """Return the commit of the newest revision of a `model` or `dataset`, OWNER/NAME.

    Raises HubAway, BadInput for a token that no request can carry, and huggingface_hub's RepositoryNotFoundError, of
    which GatedRepoError is one.
    """
    from huggingface_hub import HfApi, errors, get_token, utils

    check_token(get_token())
    utils.logging.set_verbosity_error()  # the sentence says it
    try:
        revision = getattr(HfApi(), f"{kind}_info")(name, timeout=HUB_TIMEOUT_S).sha
    except errors.RepositoryNotFoundError:
        raise
    except Exception as error:  # what else a stranger's answer may lead to
        raise HubAway(type(error).__name__) from error
    if not isinstance(revision, str):
        raise HubAway("no revision in its answer")
    return revision


def check_token(token: str | None) -> None:
    """Raise BadInput for a token that does not fit into a request."""
    if token and not (token.isascii() and token.isprintable() and " " not in token):
        raise BadInput("HF_TOKEN: the token of the hub holds characters that no token has; copy it anew")
