"""How long the rest of a comparison will take, from the training runs that are finished and from probes."""

import time
from collections.abc import Mapping

from textladder.comparison.budget import FitEstimate
from textladder.progress import Monitor


class TimeLeft:
    """Tells a monitor what is left of a comparison.

    Args:
        rows: number of training rows of each level that is trained.
        estimates: what the probes found, by level; a level without one is timed by its first training run.
        monitor: receives the time left.
    """

    def __init__(self, rows: Mapping[str, int], estimates: Mapping[str, FitEstimate], monitor: Monitor) -> None:
        self.monitor = monitor
        self._seconds = {name: one.seconds(rows[name]) for name, one in estimates.items() if name in rows}  # of a fit
        self._timed: dict[str, tuple[float, float]] = {}  # number of fits and their seconds
        self._left = dict.fromkeys(rows, 1.0)  # number of fits on all rows

    def expect(self, level: str, fits: float) -> None:
        """Set how many more fits on all its rows a level needs; a fit on a part of them counts as that part."""
        self._left[level] = fits
        self._tell()

    def trained(self, level: str, fits: float, started: float, least: float) -> None:
        """Count a training run of a level.

        Args:
            level: the level.
            fits: the share of its rows that it was trained on.
            started: when it began, by `time.perf_counter`, with everything that belongs to it.
            least: seconds that it takes at least; a training run that an earlier comparison finished took them then.
        """
        seconds = max(time.perf_counter() - started, least)
        of_level = self._timed.get(level, (0.0, 0.0))
        self._timed[level] = of_level[0] + fits, of_level[1] + seconds
        self._left[level] = max(0.0, self._left[level] - fits)
        self._tell()

    def _tell(self) -> None:
        seconds, unknown = 0.0, []
        for level, fits in self._left.items():
            if level in self._timed:
                number, spent = self._timed[level]
                seconds += fits * spent / number
            elif level in self._seconds:
                seconds += fits * self._seconds[level]
            elif fits:
                unknown.append(level)
        self.monitor.left(seconds, unknown)
