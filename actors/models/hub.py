"""Asks the Hugging Face Hub for the newest revision, once and without waiting for long."""

from conf.errors import BadInput

HUB_TIMEOUT_S = 10.0
"""Seconds for the hub's first answer. Its library by itself waits for ever, or tries six times in half a minute."""


class HubAway(Exception):
    """The hub cannot be reached, or answers nonsense. Its text is the kind of error."""


def newest(kind: str, name: str) -> str:
    """Return the commit of the newest revision of a `model` or `dataset`, OWNER/NAME.

    Raises HubAway, BadInput for a token that does not fit into a request, and huggingface_hub's RepositoryNotFoundError
    and its subclass GatedRepoError.
    """
    from huggingface_hub import HfApi, errors, get_token, utils

    token = get_token()
    if token and not (token.isascii() and token.isprintable() and " " not in token):
        raise BadInput("HF_TOKEN: the hub's token holds characters that no token has; copy it again")
    utils.logging.set_verbosity_error()  # our message says it
    try:
        revision = getattr(HfApi(), f"{kind}_info")(name, timeout=HUB_TIMEOUT_S).sha
    except errors.RepositoryNotFoundError:
        raise
    except Exception as error:  # a proxy's answer can raise anything
        raise HubAway(type(error).__name__) from error
    if not isinstance(revision, str):
        raise HubAway("no revision in its answer")
    return revision
