"""Earlier names of settings, values and metrics of this project, and their names today.

A run's folder, or an adapter in it, is read through these tables, so that it opens despite later renamings and
removals. A change that renames or removes a name adds a line here.
"""

import copy
from functools import lru_cache
from typing import Any

RENAMED: dict[str, str] = {
    "canary": "adapter_check",
    "checkpoint.mirror": "checkpoint.remote",
    "data.examples": "data.few_shot",
    "data.overlap": "data.contamination",
    "learner.ranks": "learner.world_size",
    "learner.refill": "learner.dynamic_sampling",
    "lora.alpha_rule": "lora.alpha_scaling",
    "model.shape.layers": "model.shape.num_hidden_layers",
    "model.shape.hidden": "model.shape.hidden_size",
    "model.shape.intermediate": "model.shape.intermediate_size",
    "model.shape.heads": "model.shape.num_attention_heads",
    "model.shape.kv_heads": "model.shape.num_key_value_heads",
    "model.shape.vocabulary": "model.shape.vocab_size",
    "model.shape.tied_head": "model.shape.tie_word_embeddings",
    "model.shape.context": "model.shape.max_position_embeddings",
    "run.mps": "run.nvidia_mps",
    "run.trackers": "run.report_to",
}
"""Old key of a setting or section → new key."""

VALUES: dict[str, dict[Any, Any]] = {
    "lora.alpha_scaling": {"fixed": "constant", "proportional": "linear"},
    "lora.init": {"orthogonal": "default", "principal": "default"},  # how A began no longer matters
    "model.path": {"embedded:*": "bundled:*"},
    "run.nvidia_mps": {True: "on", False: "off"},
    "run.report_to": {"mlflow": None, "trackio": None},
}
"""Key, by its new name → its old values → the new ones. `old:*` → `new:*` renames the beginning of a text; in a list,
None removes an entry.
"""

DEPARTED: dict[str, Any] = {
    "checkpoint.mirror_mb_s": 50.0,
    "curriculum.rest_epochs": 0,
    "dry_run": False,
}
"""Key of a removed setting → its old default. A run with that value does not need the setting."""

METRICS: dict[str, str] = {
    "canary/*": "adapter_check/*",
    "completion/*": "response/*",
    "mismatch/effective_share": "mismatch/ess",
    "time/canary": "time/adapter_check",
    "unjudged": "unverified",
}
"""Old name of a metric → new name. `old/*` → `new/*` renames the beginning of a name."""

EVENTS: dict[str, str] = {"does not take what it is given": "logger failed"}
"""Old end of an event's text → new end."""

ABSENT = object()


def translated(record: dict[str, Any]) -> dict[str, Any]:
    """Return a run's settings under today's names. Removed settings stay where they are not at their default."""
    record = copy.deepcopy(record)
    for old, new in RENAMED.items():
        _put(record, new, take(record, old))
    for key in VALUES:
        _put(record, key, value_today(key, take(record, key)))
    for key, default in DEPARTED.items():
        if (value := take(record, key)) != default:
            _put(record, key, value)
    return record


def without_departed(record: dict[str, Any]) -> dict[str, Any]:
    """Return settings without the removed ones, to read the results of a run."""
    record = copy.deepcopy(record)
    for key in DEPARTED:
        take(record, key)
    return record


def key_today(key: str) -> str:
    """Return today's key of a setting, also for one within a renamed section."""
    for old, new in RENAMED.items():
        if key == old or key.startswith(f"{old}."):
            key = new + key.removeprefix(old)
    return key


def value_today(key: str, value: Any) -> Any:
    """Return today's value of a setting, by its new key."""
    values = VALUES.get(key, {})
    if isinstance(value, list):
        return [new for old in value if (new := value_today(key, old)) is not None]
    if isinstance(value, str):
        return _renamed(value, values)
    return values.get(value, value) if isinstance(value, bool | int | float) else value


@lru_cache(4096)  # rows have the same names
def metric_today(name: str) -> str:
    return str(_renamed(name, METRICS))


def event_today(text: str) -> str:
    return next((text.removesuffix(old) + new for old, new in EVENTS.items() if text.endswith(old)), text)


def _renamed(text: str, names: dict[Any, Any]) -> Any:
    """Return today's form of a name: by the whole name, or else by its beginning."""
    if text in names:
        return names[text]
    starts = ((old[:-1], new[:-1]) for old, new in names.items() if isinstance(old, str) and old.endswith("*"))
    return next((new + text.removeprefix(old) for old, new in starts if text.startswith(old)), text)


def take(record: Any, key: str) -> Any:
    """Remove and return the value of a dotted key, or ABSENT. Sections that become empty are removed too."""
    first, _, rest = key.partition(".")
    if not isinstance(record, dict) or first not in record:
        return ABSENT
    if not rest:
        return record.pop(first)
    value = take(record[first], rest)
    if value is not ABSENT and not record[first]:
        del record[first]
    return value


def _put(record: dict[str, Any], key: str, value: Any) -> None:
    """Put a value, unless it is ABSENT, into nested mappings at a dotted key that is not set yet. A section keeps its
    own values."""
    if value is ABSENT:
        return
    *sections, last = key.split(".")
    for section in sections:
        record = record.setdefault(section, {})
    if isinstance(value, dict) and isinstance(record.get(last), dict):
        value = {**value, **record[last]}
        record[last] = value
    record.setdefault(last, value)
