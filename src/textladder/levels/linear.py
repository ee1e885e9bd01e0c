"""A fitted scikit-learn linear model as plain arrays, for levels that are linear.

Predicting with arrays needs no scikit-learn, whose import takes longer than a prediction.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np


@dataclass(frozen=True)
class LinearModel:
    """Weights and biases of a linear classifier over sparse features.

    As in scikit-learn, two classes have a single column, which is for the second one.

    Attributes:
        weights: float32 (features, columns).
        bias: float32 (columns,).
    """

    weights: np.ndarray
    bias: np.ndarray

    @classmethod
    def from_sklearn(cls, model: Any) -> "LinearModel":
        """The arrays of a fitted model, or of those that a `OneVsRestClassifier` has fitted for the classes."""
        models = getattr(model, "estimators_", [model])
        weights = np.concatenate([one.coef_ for one in models]).T.astype(np.float32)
        return cls(weights, np.concatenate([one.intercept_ for one in models]).astype(np.float32))

    @staticmethod
    def shapes(features: int, classes: int) -> dict[str, tuple[int, ...]]:
        """The shapes of both arrays for a number of features and classes."""
        columns = 1 if classes == 2 else classes
        return {"weights": (features, columns), "bias": (columns,)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, np.ndarray]) -> "LinearModel":
        """Restore a model from what `tensors` returned."""
        return cls(tensors["weights"], tensors["bias"])

    def tensors(self) -> dict[str, np.ndarray]:
        """The arrays by name, as a bundle holds them."""
        return {"weights": np.ascontiguousarray(self.weights), "bias": self.bias}

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        return int(self.weights.size + self.bias.size)

    def logits(self, ends: np.ndarray, indices: np.ndarray, values: np.ndarray) -> np.ndarray:
        """The logits of texts, float32 (texts, classes).

        Args:
            ends: int64 (texts + 1,), where each text begins and ends in the other arrays.
            indices: int64 (n,), the features that occur in each text.
            values: float32 (n,), their values.
        """
        if self.weights.shape[1] > 1:
            each = [values[start:stop] @ self.weights[indices[start:stop]] for start, stop in pairwise(ends.tolist())]
            of_classes: np.ndarray = np.stack(each) + self.bias
            return of_classes
        texts = np.repeat(np.arange(len(ends) - 1), np.diff(ends))
        sums = np.bincount(texts, values * self.weights[indices, 0], minlength=len(ends) - 1)
        scores = sums.astype(np.float32) + self.bias
        return np.stack([np.zeros_like(scores), scores], axis=1)

    def contributions(self, indices: np.ndarray, values: np.ndarray, label: int) -> np.ndarray:
        """What each feature adds to the logit of a class over the mean of the others, float32 (n,).

        Args:
            indices: int64 (n,), the features that occur.
            values: float32 (n,), their values.
            label: the class.
        """
        rows = self.weights[indices]
        if rows.shape[1] == 1:
            towards = rows[:, 0] if label else -rows[:, 0]
        else:
            towards = rows[:, label] - np.delete(rows, label, axis=1).mean(axis=1)
        added: np.ndarray = values * towards
        return added

    def with_all_columns(self) -> "LinearModel":
        """The same model with a column for each class, zeros for the first of two."""
        if self.weights.shape[1] > 1:
            return self
        return LinearModel(
            np.concatenate([np.zeros_like(self.weights), self.weights], axis=1),
            np.concatenate([np.zeros_like(self.bias), self.bias]),
        )
