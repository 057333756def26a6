"""Settings and values of earlier versions of this project: what has become of them.

Runs keep their settings in config.yaml, which is read through `translated`: a run folder opens whatever was renamed or
removed since. A change that renames or removes a setting adds a line here.
"""

import copy
from typing import Any

RENAMED: dict[str, str] = {}
"""Old key of a setting or section → new key."""

VALUES: dict[str, dict[Any, Any]] = {
    "lora.init": {"orthogonal": "default", "principal": "default"},  # how A began no longer matters
    "run.trackers": {"mlflow": None, "trackio": None},
}
"""Key, by its new name → its old values → the new ones; None removes an entry of a list."""

DEPARTED: dict[str, Any] = {
    "checkpoint.mirror_mb_s": 50.0,
    "curriculum.rest_epochs": 0,
    "dry_run": False,
}
"""Key of a setting that was removed → the default it had, with which a run is what it is without the setting."""

ABSENT = object()


def translated(record: dict[str, Any]) -> dict[str, Any]:
    """Return a run's settings under today's names. Of those that were removed, the ones not at their default stay."""
    record = copy.deepcopy(record)
    for old, new in RENAMED.items():
        if (value := _pop(record, old)) is not ABSENT:
            _put(record, new, value)
    for key, values in VALUES.items():
        if (value := _pop(record, key)) is not ABSENT:
            _put(record, key, _renewed(value, values))
    for key, default in DEPARTED.items():
        if (value := _pop(record, key)) not in (ABSENT, default):
            _put(record, key, value)
    return record


def without_departed(record: dict[str, Any]) -> dict[str, Any]:
    """Return settings without those that were removed, for reading what a run has made."""
    record = copy.deepcopy(record)
    for key in DEPARTED:
        _pop(record, key)
    return record


def _renewed(value: Any, values: dict[Any, Any]) -> Any:
    if isinstance(value, list):
        return [new for old in value if (new := _renewed(old, values)) is not None]
    return values.get(value, value) if isinstance(value, str | int | float) else value


def _pop(record: Any, key: str) -> Any:
    """Take a value out of nested mappings, and the sections that are empty then; ABSENT if it is not there."""
    first, _, rest = key.partition(".")
    if not isinstance(record, dict) or first not in record:
        return ABSENT
    if not rest:
        return record.pop(first)
    value = _pop(record[first], rest)
    if value is not ABSENT and not record[first]:
        del record[first]
    return value


def _put(record: dict[str, Any], key: str, value: Any) -> None:
    *sections, last = key.split(".")
    for section in sections:
        record = record.setdefault(section, {})
    record.setdefault(last, value)
