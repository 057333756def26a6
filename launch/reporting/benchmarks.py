"""The results of launch/evaluate.py in rows and sentences, for its own table and for a run's report."""

from actors.formats import duration
from actors.storage.documents import EvaluationDocument, PolicyScores

POLICIES = ("base", "adapter")


def table_rows(document: EvaluationDocument) -> list[tuple[str, ...]]:
    """Return the table of results, headings first: a row per benchmark and score, a column per policy."""
    policies = [policy for policy in POLICIES if any(getattr(each, policy) for each in document.benchmarks)]
    found: list[tuple[str, ...]] = [("benchmark", "score", *policies)] if policies else []
    for benchmark in document.benchmarks:
        title = f"{benchmark.name}, {benchmark.problems} problems"
        columns = [_figures(own) if (own := getattr(benchmark, policy)) else {} for policy in policies]
        for name in columns[0]:
            found.append((title, name, *(column.get(name, "") for column in columns)))
            title = ""
    return found


def _figures(scores: PolicyScores) -> dict[str, str]:
    measured = {f"pass@{k}": value for k, value in scores.pass_at.items()}
    measured |= {} if scores.maj_at_n is None else {"maj@n": scores.maj_at_n}
    intervals = {"pass@1": scores.ci95, **scores.intervals}
    return {
        "n": str(scores.n),
        **{name: _with_interval(value, intervals.get(name)) for name, value in measured.items()},
        "length": f"{scores.mean_length:.0f}",
        "truncated": f"{scores.truncated:.0%}",
        "format": f"{scores.format or 0:.0%}",
        "unverified": f"{scores.unverified:.1%}",
        "tokens": f"{scores.tokens:,}",
        "time": duration(scores.seconds),
    }


def _with_interval(value: float, interval: list[float] | None) -> str:
    return f"{value:.3f}" + (" ({:.3f}–{:.3f})".format(*interval) if interval else "")


def notes(document: EvaluationDocument) -> list[str]:
    """Return the sentences below the table: the protocol, and the adapter compared with the base model."""
    protocol = document.protocol
    said = [
        f"{protocol.model} in {protocol.dtype}: temperature {protocol.temperature:g}, top_p "
        f"{protocol.top_p:g}, at most {protocol.max_response_tokens} tokens per response, seed {protocol.seed}; "
        "95 % intervals over problems; time is the sum of the seconds between consecutive samples"
    ]
    if protocol.adapter and (adapter := protocol.adapter_config):
        said.append(f"adapter: {protocol.adapter}, of rank {adapter.rank}, made for {adapter.base}")
    for benchmark in document.benchmarks:
        name, base = benchmark.name, benchmark.base
        if paired := benchmark.paired:
            sure = f"{benchmark.problems} problems, too few to tell it from chance"
            if paired.ci95:
                sure = "95 % interval {:+.3f} to {:+.3f}, p = {:.2g}".format(*paired.ci95, paired.p)
            said.append(f"{name}: adapter minus base {paired.difference:+.3f} in pass@1 ({sure})")
        if base and base.n < benchmark.n:
            said.append(f"{name}: {base.n} of {benchmark.n} samples per problem so far")
        if filtered := ", ".join(f"{count} {reason}" for reason, count in benchmark.filtered_counts.items()):
            said.append(f"{name}: problems filtered from its source: {filtered}")
    return said if document.benchmarks else [*said, "No round of samples is complete yet"]
