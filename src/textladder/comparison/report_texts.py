"""The texts shown in the report: mix-ups, where levels disagree, the hardest test rows, labels that look wrong."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from textladder.class_metrics import confusion_matrix, most_mixed_up
from textladder.comparison.label_errors import LabelError
from textladder.comparison.level_result import LevelResult
from textladder.data.labelled_texts import LabelledTexts, TextData
from textladder.metrics import probability_of_truth
from textladder.wording import counted

MOST_TEXTS, MOST_MIX_UPS, TEXTS_OF_MIX_UP = 20, 8, 2
SHOWN_LENGTH, MOST_LENGTH = 300, 5_000  # characters of a text, shown at once and when it is opened


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


def mix_ups(level: LevelResult, data: TextData, *, texts: bool) -> list[dict[str, Any]]:
    """The pairs of classes that a level mixes up most often, with the test rows on which it is most confident.

    Args:
        level: the level.
        data: the rows.
        texts: whether texts are shown.
    """
    names, label_ids = data.test.label_names, data.test.label_ids
    probabilities = level.kept.predictions("test")[0]
    predicted, classes = probabilities.argmax(axis=1), probabilities.shape[1]
    counts = confusion_matrix(predicted, label_ids, len(names), classes)
    found = []
    for pair in most_mixed_up(counts, MOST_MIX_UPS):
        rows = np.flatnonzero((label_ids == pair.label) & (predicted == pair.predicted))
        rows = rows[np.argsort(-probabilities[rows, pair.predicted], kind="stable")][:TEXTS_OF_MIX_UP]
        found.append(
            {
                "label": names[pair.label],
                "predicted": names[pair.predicted],
                "rows": pair.rows,
                "texts": [_text(data.test, row) for row in rows.tolist()] if texts else [],
            }
        )
    return found


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


def _text(part: LabelledTexts, row: int) -> dict[str, str]:
    return _shortened(part.table["text"][int(part.rows[row])].as_py())


def _shortened(text: str) -> dict[str, str]:
    """What is shown of a text at once, and what follows when it is opened."""
    text = " ".join(text.split())
    cut = len(text)
    if cut > SHOWN_LENGTH:
        cut = text.rfind(" ", SHOWN_LENGTH // 2, SHOWN_LENGTH)
        cut = SHOWN_LENGTH if cut < 0 else cut
    rest = text[cut:MOST_LENGTH]
    return {"start": text[:cut], "rest": f"{rest} [...]" if len(text) > MOST_LENGTH else rest}
