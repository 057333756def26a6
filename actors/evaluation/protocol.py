"""Everything that the samples of an evaluation depend on, so that samples of different models or settings never mix."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from actors.models.adapters import WEIGHTS_FILE, Adapter
from actors.models.files import MODEL_FILES
from actors.storage.files import digest
from conf.errors import BadInput
from conf.schema import Config

SETTINGS = {
    "rollout": ("max_prompt_tokens",),
    "model": ("stop_tokens",),
    "data": ("chat_settings", "template", "system", "few_shot"),
    "reward": ("after_thinking", "custom", "deadline_s"),
}
"""Settings by section that samples and verdicts depend on, besides the protocol's other fields."""

OF_ADAPTER = ("adapter", "adapter_digest", "adapter_config")
"""Fields of the adapter, which may be evaluated after the base model."""


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Everything that a sample or its verdict depends on besides its problem.

    model_digest, adapter_digest: digests of the files of `model` and `adapter`.
    adapter_config: the model that the adapter was made for, and its shape.
    settings: values of SETTINGS by key.
    """

    model: str
    model_digest: str
    dtype: str
    adapter: str | None
    adapter_digest: str | None
    adapter_config: dict[str, Any] | None
    temperature: float
    top_p: float
    max_response_tokens: int
    seed: int
    settings: dict[str, Any]

    @classmethod
    def of(cls, config: Config, model_path: str, adapter: Adapter | None) -> "Protocol":
        """Return the protocol of an evaluation with these settings."""
        shape = {name: getattr(config.lora, name) for name in ("rank", "alpha", "rslora", "target_modules")}
        known = asdict(config)
        return cls(
            model=config.model.path,
            model_digest=model_digest(model_path),
            dtype=config.model.dtype,
            adapter=str(adapter.folder) if adapter else None,
            adapter_digest=digest(adapter.folder / WEIGHTS_FILE) if adapter else None,
            adapter_config={"base": adapter.base, **shape} if adapter else None,
            temperature=config.eval.temperature,
            top_p=config.eval.top_p,
            max_response_tokens=response_limit(config),
            seed=config.run.seed,
            settings={f"{section}.{key}": known[section][key] for section, keys in SETTINGS.items() for key in keys},
        )

    def check_continues(self, recorded: Mapping[str, Any], evaluation: str) -> None:
        """Raise BadInput if samples by this protocol would mix with recorded samples by another.

        An adapter may be added to the base model, and may have moved to another folder.
        """
        before = {**recorded, **recorded.get("settings", {})}
        now = {**vars(self), **self.settings}
        free = ("settings", "adapter") if before["adapter"] else ("settings", *OF_ADAPTER)
        key = next((key for key in now if key not in free and before.get(key) != now[key]), None)
        if key is None:
            return
        named = key.removesuffix("_digest")
        other = f"{now[named]} with other content" if named != key and now[named] is not None else now[named]
        raise BadInput(
            f"{evaluation} was begun with {named}={before.get(named)}, not {other}: go on with the same settings, "
            "or give run.name=OTHER or run.overwrite=true"
        )


def response_limit(config: Config) -> int:
    """Return the most tokens of an evaluated response."""
    return config.eval.max_response_tokens or config.rollout.max_response_tokens


def model_digest(folder: str) -> str:
    """Return a digest of all files of a model, weights included. Sizes do not tell trained weights apart, and times
    change when files are copied.
    """
    files = {file for pattern in MODEL_FILES for file in Path(folder).glob(pattern)}
    return hashlib.blake2b(repr([(file.name, digest(file)) for file in sorted(files)]).encode()).hexdigest()
