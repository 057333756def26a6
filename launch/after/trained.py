"""What a run has trained: its settings, its base model and the adapter of one of its checkpoints."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from actors.models.adapters import adopt_adapter
from actors.models.files import locate, shape_from_config
from actors.models.sizes import longest_sample
from actors.runtime.placement import SPINS, Share, place_engines
from actors.runtime.process import VLLM_BUILDS, handle_signals, raise_exit, software_versions
from actors.storage.checkpoints import target
from actors.storage.files import damage
from actors.storage.run_record import RunRecord
from conf.errors import BadInput
from conf.load import recorded, settings_of
from conf.schema import Config
from conf.settings import changed
from launch.hardware.machine import check_build, detect
from launch.plan.refusal import check_engines

LATEST = "latest"

TALK_TOKENS, REPLY_TOKENS = 4096, 1024
"""Longest conversation and longest reply in it, where the model's context allows that."""

AT_ONCE = 8
"""Replies that an engine for a few people writes at a time."""


@dataclass(frozen=True)
class Trained:
    """A policy that a run has trained.

    config: the run's settings. model_path: the base model's local folder.
    checkpoint: the folder whose adapter it is, links resolved.
    """

    run: RunRecord
    config: Config
    model_path: str
    checkpoint: Path

    @property
    def adapter(self) -> Path:
        """Folder of the plain PEFT adapter."""
        return self.checkpoint / "adapter"

    @property
    def base_on_hub(self) -> bool:
        """Whether the base model was named by its id on the hub."""
        base = self.config.model.path
        return not base.startswith("embedded:") and not Path(base).exists()


def find_trained(folder: Path, checkpoint: str = LATEST) -> Trained:
    """Return what the run in a folder has trained. checkpoint: latest, best or the name of one.

    Raises BadInput if there is no such run or checkpoint, if the adapter is not the one that the run has written, or
    does not belong to the run's model.
    """
    run = find_run(folder)
    found = target(run.checkpoints.folder / checkpoint)
    names = [each.name for each in run.checkpoints.all]
    if not names:
        raise BadInput(f"the run in {folder} has no checkpoint yet: let it go on until it has one")
    if found is None or found.name not in names:
        hint = "; `best` is there where validation.every asks for it" if checkpoint == "best" else ""
        raise BadInput(f"checkpoint={checkpoint}: the run in {folder} has {', '.join([LATEST, *names])}{hint}")
    if (reason := damage(found, "adapter/")) is not None:
        raise BadInput(f"the adapter in {found} is not as the run has written it ({reason}): name another checkpoint")
    config = settings_of(found / "adapter")
    model_path = locate(config.model)
    config, _ = adopt_adapter(config, model_path)
    return Trained(run, config, model_path, found)


def find_run(folder: Path) -> RunRecord:
    """Return the run in a folder. Raises BadInput if there is none."""
    if not os.path.isdir(folder):
        raise BadInput(f"there is no folder {folder}: name that of a run, such as runs/quickstart")
    if not recorded(folder):
        raise BadInput(f"{folder} is not the folder of a run: name one that has a config.yaml, such as runs/quickstart")
    return RunRecord(folder)


def talking(trained: Trained) -> tuple[Config, Share]:
    """Return settings under which an engine has room for a conversation and few of them at a time, and its share of
    this machine. Raises BadInput if this machine has no room for one.
    """
    config, shape = trained.config, shape_from_config(trained.model_path)
    longest = max(min(TALK_TOKENS, shape.context), longest_sample(config))
    asked = config.eval.max_response_tokens or config.rollout.max_response_tokens
    reply = max(asked, min(REPLY_TOKENS, longest // 2))
    config = changed(
        config,
        {
            "eval.max_response_tokens": asked,
            "rollout.max_response_tokens": reply,
            "rollout.max_prompt_tokens": longest - reply,
            "rollout.max_concurrent_samples": AT_ONCE,
        },
    )
    machine = detect(config.device)
    check_build(config, machine, software_versions(VLLM_BUILDS))
    placement = place_engines(machine.cores, machine.gpus)
    check_engines(config, shape, machine, placement)
    return config, placement.rollouts[0]


def carry_out(work: Callable[[], int]) -> int:
    """Do work that writes models, without libraries' progress bars. Return its exit code, or that of a signal, which
    takes away what is half written.
    """
    handle_signals(raise_exit)
    os.environ["TQDM_DISABLE"] = "1"
    os.environ.setdefault("GOMP_SPINCOUNT", SPINS)  # before torch is imported
    try:
        return work()
    except SystemExit as told:
        return 128 + int(told.code or 0)
