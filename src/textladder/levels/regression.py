"""Logistic regression on the values of terms: by scikit-learn, or in chunks where memory does not hold them.

Both minimize the same loss. With the values x of a text, its label y of -1 or 1 and its weight c it is

    the sum of c log(1 + exp(-y (w x + b)))  +  (w w + b b) / 2

for two classes, and for each class against the rest if there are more.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from textladder.levels.linear import LinearModel
from textladder.progress import Monitor
from textladder.scratch_file import ScratchFile

CHUNK = 1 << 21  # values that are kept and computed with at once
MOST_IN_MEMORY = 1 << 25  # values; with scikit-learn's copies they take 1 GB
MOST_WEIGHTS = 1 << 21  # that are fitted at once in chunks; the method keeps 30 arrays of their size
LIBLINEAR_TOLERANCE = 0.01
TOLERANCE = 1e-8  # relative change of the loss at which it has settled
MOST_PASSES = 1_000


@dataclass(frozen=True)
class TermValues:
    """The terms of some texts and their values, as the arrays of a sparse matrix.

    Attributes:
        ends: where each text begins and ends in the other arrays, int64 (texts + 1,).
        terms: int (n,), of each text in ascending order.
        values: float32 or int64 (n,).
    """

    ends: np.ndarray
    terms: np.ndarray
    values: np.ndarray


class SparseTexts:
    """The values of terms in many texts, in memory or, if they are too many, in a temporary file.

    Args:
        terms: how many terms there are.
    """

    def __init__(self, terms: int) -> None:
        self.terms = terms
        self._waiting: list[TermValues] = []
        self._chunks: list[TermValues] = []
        self._places: list[tuple[int, int, int, int, int]] = []  # of chunks in the file: three places, texts, values
        self._file: ScratchFile | None = None
        self._size = self._waiting_values = 0

    @property
    def in_memory(self) -> bool:
        """Whether all values are in memory."""
        return self._file is None

    def add(self, counts: TermValues) -> None:
        """Add texts."""
        self._waiting.append(counts)
        self._waiting_values += len(counts.terms)
        if self._waiting_values > CHUNK:
            self._keep()

    def chunks(self) -> Iterator[TermValues]:
        """The texts in order, some at a time, with values in float32."""
        self._keep()
        yield from self._chunks
        for number in range(len(self._places)):
            yield self._read(number)

    def change(self, function: Callable[[TermValues], np.ndarray]) -> None:
        """Replace the values by those that a function computes, float32 (n,)."""
        self._keep()
        self._chunks = [TermValues(one.ends, one.terms, function(one)) for one in self._chunks]
        for number, (_, _, place, _, _) in enumerate(self._places):
            assert self._file is not None
            self._file.write(place, function(self._read(number)))

    def _keep(self) -> None:
        """Make a chunk of the texts that wait."""
        if not self._waiting:
            return
        chunk = joined(self._waiting)
        self._waiting, self._waiting_values = [], 0
        self._chunks.append(chunk)
        self._size += len(chunk.terms)
        if self._size > MOST_IN_MEMORY:
            self._file = file = self._file or ScratchFile()
            for one in self._chunks:
                places = [file.append(array) for array in (one.ends, one.terms, one.values)]
                self._places.append((places[0], places[1], places[2], len(one.ends), len(one.terms)))
            self._chunks = []

    def _read(self, number: int) -> TermValues:
        assert self._file is not None
        ends, terms, values, texts, size = self._places[number]
        return TermValues(
            self._file.read(ends, texts, np.int64),
            self._file.read(terms, size, np.int32),
            self._file.read(values, size, np.float32),
        )


def joined(parts: Sequence[TermValues]) -> TermValues:
    """Texts one after the other, with terms in int32 and values in float32."""
    sizes = np.concatenate([np.diff(one.ends) for one in parts])
    return TermValues(
        np.concatenate([[0], np.cumsum(sizes)]),
        np.concatenate([one.terms for one in parts]).astype(np.int32, copy=False),
        np.concatenate([one.values for one in parts]).astype(np.float32, copy=False),
    )


def fit_regression(
    texts: SparseTexts,
    label_ids: np.ndarray,
    classes: int,
    *,
    strength: float,
    balanced: bool,
    seed: int,
    monitor: Monitor,
) -> LinearModel:
    """Fit a regression.

    Args:
        texts: the values of their terms.
        label_ids: the class of each text, int64 (texts,).
        classes: how many classes there are.
        strength: the inverse of the regularization strength, which is the weight of each text.
        balanced: weight the texts so that all classes count the same.
        seed: of the order in which scikit-learn visits the texts.
        monitor: receives progress where the values are not in memory.
    """
    if texts.in_memory:
        return _fit_in_memory(texts, label_ids, classes, strength, balanced, seed)
    return _fit_in_chunks(texts, label_ids, classes, strength, balanced, monitor)


def _fit_in_memory(
    texts: SparseTexts, label_ids: np.ndarray, classes: int, strength: float, balanced: bool, seed: int
) -> LinearModel:
    from scipy.sparse import csr_matrix
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier

    # where there are more terms than texts the dual problem is solved in a fifth of the time
    binary = LogisticRegression(
        C=strength,
        class_weight="balanced" if balanced else None,
        solver="liblinear",
        dual=True,
        tol=LIBLINEAR_TOLERANCE,
        max_iter=1000,
        random_state=seed,
    )
    model: Any = binary if classes == 2 else OneVsRestClassifier(binary)
    whole = joined(list(texts.chunks()))
    values = whole.values.astype(np.float64)  # as liblinear takes them
    return LinearModel.from_sklearn(
        model.fit(csr_matrix((values, whole.terms, whole.ends), (len(label_ids), texts.terms)), label_ids)
    )


def _fit_in_chunks(
    texts: SparseTexts, label_ids: np.ndarray, classes: int, strength: float, balanced: bool, monitor: Monitor
) -> LinearModel:
    """Minimize the loss by L-BFGS (Liu & Nocedal 1989), whose gradient is summed over the chunks.

    Classes do not depend on each other, so several are fitted at once, as many as memory holds: each pass over the
    texts is for all of them.
    """
    from scipy.optimize import minimize

    positive = np.array([1]) if classes == 2 else np.arange(classes)
    at_once = max(1, MOST_WEIGHTS // (texts.terms + 1))
    fitted = []
    for start in range(0, len(positive), at_once):
        some = positive[start : start + at_once]
        weights = np.full((len(some), 2), strength)  # of the rest, and of the class
        if balanced:
            members = np.bincount(label_ids, minlength=classes)[some]
            weights *= len(label_ids) / 2 / np.stack([len(label_ids) - members, members], axis=1)
        loss = _Loss(texts, label_ids, some, weights, monitor)
        found = minimize(
            loss,
            np.zeros(len(some) * (texts.terms + 1)),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": MOST_PASSES, "maxfun": MOST_PASSES, "ftol": TOLERANCE, "gtol": 0.0},
        )
        if not found.success and found.nfev >= MOST_PASSES:
            monitor.say(f"The regression had not settled after {MOST_PASSES:,} passes over the texts.")
        fitted.append(found.x.reshape(len(some), -1).astype(np.float32))
    columns = np.concatenate(fitted)
    return LinearModel(columns[:, :-1].T, columns[:, -1])


class _Loss:
    """The loss of some classes against the rest and its gradient, over all texts."""

    def __init__(
        self, texts: SparseTexts, label_ids: np.ndarray, positive: np.ndarray, weights: np.ndarray, monitor: Monitor
    ) -> None:
        self._texts, self._label_ids, self._positive, self._weights = texts, label_ids, positive, weights
        self._monitor, self._passes = monitor, 0

    def __call__(self, parameters: np.ndarray) -> tuple[float, np.ndarray]:
        from scipy.sparse import csr_matrix
        from scipy.special import expit

        columns = parameters.reshape(len(self._positive), -1)  # the weights and, at the end, the bias
        weights, bias = np.ascontiguousarray(columns[:, :-1].T, np.float32), columns[:, -1]
        loss, gradient, start = float(parameters @ parameters) / 2, columns.copy(), 0
        for chunk in self._texts.chunks():
            stop = start + len(chunk.ends) - 1
            values = csr_matrix((chunk.values, chunk.terms, chunk.ends), (stop - start, self._texts.terms))
            is_member = self._label_ids[start:stop, None] == self._positive
            sign = np.where(is_member, 1.0, -1.0)
            of_text = np.where(is_member, self._weights[:, 1], self._weights[:, 0])
            margins = sign * (values @ weights + bias)
            loss += float((of_text * np.logaddexp(0, -margins)).sum())
            slopes = -of_text * sign * expit(-margins)
            gradient[:, :-1] += (values.T @ slopes.astype(np.float32)).T
            gradient[:, -1] += slopes.sum(axis=0)
            start = stop
        self._passes += 1
        self._monitor.advance(self._passes, f"loss {loss / len(self._label_ids):.4f}")
        return loss, gradient.ravel()
