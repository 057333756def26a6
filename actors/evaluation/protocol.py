"""Everything that the samples of an evaluation depend on, so that samples of different models or settings never mix."""

from dataclasses import asdict

from actors.models.adapters import WEIGHTS_FILE, Adapter
from actors.models.files import model_digest
from actors.storage.documents import AdapterShape, Protocol
from actors.storage.files import digest
from conf.errors import BadInput
from conf.schema import Config, affecting

SETTINGS = affecting("prompt", "response", "verdict")
"""Settings that samples and verdicts depend on, besides the protocol's other fields."""

OF_ADAPTER = ("adapter", "adapter_digest", "adapter_config")
"""Fields of the adapter, which may be evaluated after the base model."""


def protocol_of(config: Config, model_path: str, adapter: Adapter | None) -> Protocol:
    """Return the protocol of an evaluation with these settings."""
    shape = {name: getattr(config.lora, name) for name in ("rank", "alpha", "rslora", "target_modules")}
    known = asdict(config)
    own = [
        {key: value for key, value in each.items() if value and f"data.{key}" in SETTINGS}
        for each in known["data"]["mixture"]
    ]
    known["reward"]["custom"] = [part.function for part in config.reward.custom]  # no verdict depends on a weight
    return Protocol(
        model=config.model.path,
        model_digest=model_digest(model_path),
        dtype=config.model.dtype,
        adapter=str(adapter.folder) if adapter else None,
        adapter_digest=digest(adapter.folder / WEIGHTS_FILE) if adapter else None,
        adapter_config=AdapterShape(base=adapter.base, **shape) if adapter else None,
        temperature=config.eval.temperature,
        top_p=config.eval.top_p,
        max_response_tokens=response_limit(config),
        seed=config.run.seed,
        settings={key: known[key.partition(".")[0]][key.partition(".")[2]] for key in SETTINGS}
        | ({"data.mixture": own} if any(own) else {}),
    )


ANEW = "go on with the same settings, or give run.name=OTHER or run.overwrite=true"


def check_continues(protocol: Protocol, recorded: Protocol, evaluation: str, remedy: str = ANEW) -> None:
    """Raise BadInput if recorded samples were made by another protocol.

    An adapter may be added to the base model, and may have moved to another folder.
    """
    before, now = ({**each.content, **each.settings} for each in (recorded, protocol))
    free = ("settings", "adapter") if before.get("adapter") else ("settings", *OF_ADAPTER)
    key = next((key for key in now if key not in free and before.get(key) != now[key]), None)
    if key is None:
        return
    named = key.removesuffix("_digest")
    other = f"{now[named]} with other content" if named != key and now[named] is not None else now[named]
    raise BadInput(f"{evaluation} was begun with {named}={before.get(named)}, not {other}: {remedy}")


def response_limit(config: Config) -> int:
    """Return the most tokens of an evaluated response."""
    return config.eval.max_response_tokens or config.rollout.max_response_tokens
