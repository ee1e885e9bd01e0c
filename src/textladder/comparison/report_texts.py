"""The texts shown in the report: where levels disagree, the hardest test rows, and labels that look wrong."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from textladder.comparison.label_errors import LabelError
from textladder.comparison.level_result import LevelResult
from textladder.data.labelled_texts import LabelledTexts, TextData
from textladder.metrics import probability_of_truth
from textladder.wording import counted

MOST_TEXTS, TEXT_LENGTH = 20, 400


def disagreements(levels: Sequence[LevelResult], data: TextData) -> dict[str, Any]:
    """The test rows on which some levels are correct and others wrong, the most confident first.

    Args:
        levels: at least two.
        data: the rows.

    Returns:
        A section of the report: title, explanation, columns and rows.
    """
    names, labels = data.test.label_names, data.test.label_ids
    probabilities = [one.kept.predictions("test")[0] for one in levels]
    correct = np.stack([one.correct[one.kept_index] for one in levels])
    least_confident = np.min([one.max(axis=1) for one in probabilities], axis=0)
    split = np.flatnonzero(correct.any(axis=0) & ~correct.all(axis=0))
    order = split[np.argsort(-least_confident[split], kind="stable")][:MOST_TEXTS]
    return {
        "title": "Where the levels disagree",
        "words": f"On {len(split):,} of {counted(len(labels), 'test row')} some levels are correct and others wrong. "
        "Rows on which every level is confident come first.",
        "columns": ["true label", *[one.level for one in levels]],
        "rows": [
            {
                "cells": [
                    _plain(names[labels[row]]),
                    *[_predicted(one[row], labels[row], names) for one in probabilities],
                ],
                "text": _text(data.test, row),
            }
            for row in order.tolist()
        ],
    }


def hardest_rows(level: LevelResult, data: TextData) -> dict[str, Any]:
    """The test rows with the highest loss, as a section of the report."""
    names, labels = data.test.label_names, data.test.label_ids
    probabilities = level.kept.predictions("test")[0]
    order = np.argsort(probability_of_truth(probabilities, labels), kind="stable")[:MOST_TEXTS]
    return {
        "title": "The hardest test rows",
        "words": f"The test rows on which {level.level} has the highest loss. Some of their labels may be wrong.",
        "columns": ["true label", level.level],
        "rows": [
            {
                "cells": [_plain(names[labels[row]]), _predicted(probabilities[row], labels[row], names)],
                "text": _text(data.test, row),
            }
            for row in order.tolist()
        ],
    }


def suspicious_labels(errors: Sequence[LabelError], data: TextData, unavailable: str | None) -> dict[str, Any]:
    """Training rows whose label is probably wrong, as a section of the report.

    Args:
        errors: the rows.
        data: the rows' texts and label names.
        unavailable: why label errors were not searched for; None if they were.

    Returns:
        A section of the report.
    """
    names, texts = data.label_names, data.train.table["text"]
    return {
        "title": "Labels that look wrong",
        "words": unavailable
        or "Training rows whose label contradicts the out-of-fold prediction of tfidf (confident learning), the most "
        "suspicious first. Rows are counted from 0.",
        "columns": ["row", "label", "predicted"],
        "rows": [
            {
                "cells": [
                    _plain(f"{one.row:,}"),
                    _plain(names[one.label]),
                    _plain(f"{names[one.predicted]} {one.probability:.0%}"),
                ],
                "text": _shortened(texts[one.row].as_py()),
            }
            for one in errors
        ],
    }


def text_sections(
    levels: Sequence[LevelResult],
    recommended: str | None,
    data: TextData,
    label_errors: Sequence[LabelError],
    unavailable: str | None,
) -> Iterator[dict[str, Any]]:
    """All sections of the report that show texts.

    Args:
        levels: from the cheapest to the most expensive; at least one.
        recommended: name of the level whose hardest rows are shown; None for the cheapest.
        data: the rows.
        label_errors: rows whose label is probably wrong.
        unavailable: why label errors were not searched for; None if they were.
    """
    if len(levels) > 1:
        yield disagreements(levels, data)
    yield hardest_rows(next((one for one in levels if one.level == recommended), levels[0]), data)
    yield suspicious_labels(label_errors, data, unavailable)


def _plain(text: str) -> dict[str, Any]:
    return {"text": text, "correct": None}


def _predicted(probabilities: np.ndarray, label: int, names: Sequence[str]) -> dict[str, Any]:
    place = int(probabilities.argmax())
    return {"text": f"{names[place]} {probabilities[place]:.0%}", "correct": place == label}


def _text(part: LabelledTexts, row: int) -> str:
    return _shortened(part.table["text"][int(part.rows[row])].as_py())


def _shortened(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= TEXT_LENGTH else f"{text[:TEXT_LENGTH]} [...]"
