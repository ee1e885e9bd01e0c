"""Keeping to a time budget: how long a fit will take, and how many training rows that leaves for a level."""

from dataclasses import dataclass

LEAST_SHARE, LEAST_ROWS = 0.1, 50  # with fewer rows than both, a level is left out instead


@dataclass(frozen=True)
class FitEstimate:
    """What a probe found about the duration of a fit.

    Attributes:
        fixed_seconds: part of a fit that does not depend on the number of training rows; negative if the time per row
            grows with the rows.
        row_seconds: part of a fit per training row.
        fit_seconds: a fit on all training rows.
        probe_seconds: what the probe itself took.
    """

    fixed_seconds: float
    row_seconds: float
    fit_seconds: float
    probe_seconds: float

    def seconds(self, rows: int) -> float:
        """The expected duration of a fit on some of the training rows."""
        return max(0.0, self.fixed_seconds + self.row_seconds * rows)

    def affordable_rows(self, seconds: float, total: int) -> int | None:
        """How many training rows can be fitted in a given time.

        Args:
            seconds: the time for one fit.
            total: number of all training rows.

        Returns:
            The number of rows, 0 for all of them, None if it would be too few to be useful.
        """
        if self.fit_seconds <= seconds:
            return 0
        rows = int((seconds - self.fixed_seconds) / self.row_seconds) if self.row_seconds else 0
        return None if rows < max(LEAST_ROWS, LEAST_SHARE * total) else rows


def fit_estimate(seconds_by_rows: dict[int, float], first_fit: float, total: int, probe_seconds: float) -> FitEstimate:
    """Extrapolate from fits on small samples to a fit on all rows.

    Args:
        seconds_by_rows: duration of each fit by its number of rows, ascending.
        first_fit: duration of the very first fit, on the smallest sample, which includes one-off costs of libraries.
        total: number of all training rows.
        probe_seconds: what the probe took in all.

    Returns:
        The estimate: a straight line through the two largest samples plus the one-off costs.
    """
    one_off = max(0.0, first_fit - seconds_by_rows[min(seconds_by_rows)])
    (few, quick), (many, slow) = (list(seconds_by_rows.items()) * 2)[-2:]
    row_seconds = max(0.0, slow - quick) / (many - few) if many > few else 0.0
    fixed = one_off + slow - row_seconds * many
    return FitEstimate(fixed, row_seconds, fixed + row_seconds * total, probe_seconds)
