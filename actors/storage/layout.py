"""The files of each kind of folder, by name: `actors.storage.folders` deletes these and no others."""

import re

from actors.storage.folders import Layout

UNFINISHED = r"\.tmp[A-Za-z0-9]{6}"
"""Name of the file that safetensors writes and renames; a killed process leaves it."""

_ADAPTER = rf"adapter_model\.safetensors|adapter_config\.json|{UNFINISHED}"
_CHECKPOINT = rf"""
    adapter/({_ADAPTER}) | learner\.(safetensors|json) | (coordinator|manifest)\.json | {UNFINISHED}
"""
_EVALUATION = r"\.microbudget-rl|evaluation\.(json|md)|samples/[^/]+-(base|adapter)\.jsonl|ray-session"
_RUN = rf"""
    config\.yaml | problems\.digest | problems-left-out\.jsonl | (reference_set|selection)\.json
    | (metrics|events)\.jsonl | warm-start(-metrics)?\.jsonl | validation-0\.json
    | (identity|origin|spent|ledger|incarnation|summary)\.json | eval-[\w.+-]+\.json
    | failure\.log | report\.(html|md) | ray-session | samples/(eval|update|skipped|warm)-[\w.+-]+\.jsonl
    | tensorboard/events\.out\.tfevents\.[^/]+
    | wandb/(debug[\w.-]*\.log | latest-run | settings | (offline-)?run-.+)
    | adapters/[^/]+/({_ADAPTER}) | evaluation/({_EVALUATION})
    | checkpoints/(latest | best | (refused-)?update-\d+/({_CHECKPOINT}))
"""

ADAPTER = Layout("adapter", re.compile(_ADAPTER))

ADAPTERS = Layout("adapters", re.compile(rf"[^/]+/({_ADAPTER})"))
"""A folder of adapters."""

CHECKPOINT = Layout("checkpoint", re.compile(_CHECKPOINT, re.VERBOSE))

EVALUATION = Layout("evaluation", re.compile(_EVALUATION))

RUN = Layout("run", re.compile(_RUN, re.VERBOSE))

RAY_SESSION = Layout("ray-session", re.compile(r".+", re.DOTALL))
"""A Ray session. Ray names the files itself, so that only the mark identifies the folder."""

SWEEP = Layout("sweep", re.compile(r"sweep\.json|report\.(html|md)|[^/]+\.log"))
"""The files of a sweep, without those of its runs."""
