"""Refuses exams and runs that do not belong in one table."""

from hashlib import blake2b
from typing import Any

from actors.evaluation.protocol import OF_ADAPTER
from actors.storage.run_record import RunRecord
from conf.errors import BadInput
from launch.reporting.history import MODEL, Run, Sweep

EVERYWHERE = ("temperature", "top_p", "max_response_tokens", "seed")
"""Fields of a protocol that all exams of a sweep share. Those of one model share all but the adapter's."""


def check(sweep: Sweep) -> None:
    """Raise BadInput if the exams differ in samples, benchmarks or protocol, or the runs of a model in the problems
    that chose their result.
    """
    known: dict[tuple[str, ...], tuple[Any, str]] = {("n",): (sweep.n, "sweep.json")}

    def same(value: Any, run: Run, *thing: str) -> None:
        other, first = known.setdefault(thing, (value, run.name))
        if other != value:
            raise BadInput(
                f"{run.folder}: {thing[0]}={value}, but {thing[0]}={other} in {first}, so that they are not comparable:"
                " make one of them anew with the settings of the other, or move it away"
            )

    for run in (*sweep.bases, *sweep.runs):
        model = str(run.settings.get(MODEL))
        if run.begun and (chose := RunRecord(run.folder).selection()):
            digest = blake2b(repr(sorted(chose)).encode(), digest_size=4).hexdigest()
            same(f"{len(chose)} problems ({digest})", run, "selection", model)
        given = run.evaluation.benchmarks if run.evaluation else ()
        results = {each.name: each for each in given if each.name in sweep.benchmarks}
        missing = [name for name in sweep.benchmarks if name not in results]
        if missing and run.exam == "completed":
            raise BadInput(f"{run.folder}: its exam is completed but lacks {', '.join(missing)}: evaluate it anew")
        for name, result in results.items():
            same(result.n, run, "n")
            same(result.limit, run, "limit", name)
        if run.evaluation and results:
            protocol = run.evaluation.protocol
            every = {**protocol.content, **protocol.settings}
            for key in EVERYWHERE:
                same(getattr(protocol, key), run, key)
            for key in sorted(every.keys() - {"settings", *OF_ADAPTER, *EVERYWHERE}):
                same(every[key], run, key, model)
