"""What the samples of an evaluation depend on: those of different models, adapters or protocols are not mixed."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from actors.models.adapters import WEIGHTS_FILE, Adapter
from actors.models.files import MODEL_FILES
from actors.storage.files import digest
from conf.errors import BadInput
from conf.schema import Config

EXTENT = ("adapter", "n", "limit")
"""Fields that may change when an evaluation goes on: they say how much is drawn, not how."""

OF_ADAPTER = ("adapter_digest", "adapter_config")
"""Fields that an adapter brings, which may join the base model later."""


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """All that a sample, or its verdict, depends on besides its problem, and how many samples there are to be.

    model_digest, adapter_digest: of the content of what `model` and `adapter` name.
    adapter_config: the model that the adapter was made for, and its shape.
    examples: problem and answer of each.
    custom: functions of the reward.
    """

    model: str
    model_digest: str
    dtype: str
    adapter: str | None
    adapter_digest: str | None
    adapter_config: dict[str, Any] | None
    n: int
    limit: int | None
    temperature: float
    top_p: float
    max_prompt_tokens: int
    max_response_tokens: int
    seed: int
    stop_tokens: list[str]
    chat_settings: dict[str, Any]
    template: str
    system: str | None
    examples: list[dict[str, str]]
    after_thinking: bool
    custom: list[str]
    deadline_s: float

    @classmethod
    def of(cls, config: Config, model_path: str, adapter: Adapter | None) -> "Protocol":
        """Return the protocol of an evaluation by these settings."""
        data, reward = config.data, config.reward
        shape = {name: getattr(config.lora, name) for name in ("rank", "alpha", "rslora", "target_modules")}
        return cls(
            model=config.model.path,
            model_digest=model_digest(model_path),
            dtype=config.model.dtype,
            adapter=str(adapter.folder) if adapter else None,
            adapter_digest=digest(adapter.folder / WEIGHTS_FILE) if adapter else None,
            adapter_config={"base": adapter.base, **shape} if adapter else None,
            n=config.n,
            limit=config.limit,
            temperature=config.eval.temperature,
            top_p=config.eval.top_p,
            max_prompt_tokens=config.rollout.max_prompt_tokens,
            max_response_tokens=response_limit(config),
            seed=config.run.seed,
            stop_tokens=config.model.stop_tokens,
            chat_settings=data.chat_settings,
            template=data.template,
            system=data.system,
            examples=[{"problem": example.problem, "answer": example.answer} for example in data.examples],
            after_thinking=reward.after_thinking,
            custom=[part.function for part in reward.custom],
            deadline_s=reward.deadline_s,
        )

    @classmethod
    def recorded(cls, document: Mapping[str, Any]) -> "Protocol":
        """Return the protocol that evaluation.json records. A field that an older one lacks is None."""
        known: dict[str, Any] = {field.name: document.get(field.name) for field in fields(cls)}
        return cls(**known)

    def check_continues(self, before: "Protocol", what: str) -> None:
        """Raise BadInput if samples by this protocol cannot stand beside those of the one before.

        what: names the evaluation.
        """
        free = EXTENT if before.adapter else EXTENT + OF_ADAPTER
        expected = replace(before, **{name: getattr(self, name) for name in free})
        if self == expected:
            return
        key = next(name for name, now in vars(self).items() if getattr(expected, name) != now)
        named = key.removesuffix("_digest")
        was, now = getattr(before, named), getattr(self, named)
        if named != key and now is not None:
            now = f"{now} with other content"
        raise BadInput(
            f"{what} was begun with {named}={was}, not {now}: go on with the same settings, "
            "or give run.name=OTHER or run.overwrite=true"
        )


def response_limit(config: Config) -> int:
    """Return the tokens that an evaluated response may have."""
    return config.eval.max_response_tokens or config.rollout.max_response_tokens


def model_digest(folder: str) -> str:
    """Return a digest of all files of a model, weights included.

    Their sizes or times would not do, since weights trained further have the same sizes, and a copy on another machine
    has other times.
    """
    files = {file for pattern in MODEL_FILES for file in Path(folder).glob(pattern)}
    return hashlib.blake2b(repr([(file.name, digest(file)) for file in sorted(files)]).encode()).hexdigest()
