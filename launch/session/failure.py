"""summary.json of a run whose coordinator could not write it."""

from typing import TYPE_CHECKING, Any

from actors.storage.checkpoints import version_of
from actors.storage.disk_trouble import disk_trouble
from actors.storage.run_folder import RunFolder

if TYPE_CHECKING:
    from launch.session.coordinator_actor import RunRequest


def write_ending(request: "RunRequest", status: str, reason: str, failure: str = "") -> dict[str, Any]:
    """Write what the run folder still tells, under the usual keys, and return it; also if the disk takes nothing.

    A summary already written by the coordinator is kept. failure: the whole text of the error that ended the run.
    """
    folder = RunFolder(request.folder)
    written = folder.summary()
    if written is not None:
        return written
    latest, spent, price = folder.checkpoints.latest, request.spent, request.config.budget.price_per_hour
    summary: dict[str, Any] = {
        "status": status,
        "reason": reason,
        "updates": version_of(latest) if latest else 0,
        "budget_s": request.config.budget.seconds,
        "spent_s": spent,
        "cost": None if price is None else price * spent / 3600,
        "eval": {"base": folder.evaluation("base"), "final": None},
        "plasticity": None,
        "best_update": None,
        "ledger": folder.ledger() or {"seconds": {}, "counts": {}},
        "events": folder.events(),
        "versions": {},
        "hardware": request.hardware,
    }
    try:
        folder.write_spent(spent)
        folder.write_summary(summary)
        if failure:
            folder.write_failure(failure)
    except OSError as error:
        if trouble := disk_trouble(folder.path, error):
            return {**summary, "status": "halted", "reason": f"{reason}; {trouble}"}
        raise
    return summary
