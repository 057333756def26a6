"""What a bench found."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One comparison: `value` is ours, `baseline` the other's, measured in turn in the same call."""

    case: str
    metric: str
    value: float
    baseline: float

    @property
    def ratio(self) -> float:
        return self.value / self.baseline


@dataclass(frozen=True)
class Report:
    """limit: what the machine could do, by name with its unit. notes: sentences for people."""

    rows: tuple[Row, ...]
    limit: dict[str, float]
    notes: tuple[str, ...] = ()
