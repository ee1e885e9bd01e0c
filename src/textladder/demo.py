"""`make demo`: train every level on the embedded sample, show them side by side, save them, predict with each.

    python -m textladder.demo [FOLDER]

What the commands do on your own file, in one run that needs no data and no network.
"""

import sys
import time
from pathlib import Path

from textladder.classifier import TextClassifier
from textladder.cli import fail
from textladder.data import TextData, read_texts
from textladder.errors import TextladderError
from textladder.levels import LEVELS
from textladder.progress import monitor_for_terminal

TEXTS = (
    "The kettle boils fast and the handle stays cool. Bought a second one for my mother.",
    "Stopped charging after nine days, and the seller never answered.",
    "I expected to send it back. I was wrong, it hasn't let me down once.",
)
# what is installed, so that the demo needs no network
SETTINGS = {"transformer": {"encoder": "all-MiniLM-L6-v2"}}


def main(folder: Path) -> None:
    """Train, compare, save and predict in `folder`."""
    data = read_texts("sample")
    print("Data:", data.description.partition("): ")[2])
    print()
    classifiers = {level: _fit(level, data, folder) for level in LEVELS}
    print(f"{'level':<11}  {'test accuracy (95% interval)':<30}  {'macro F1':>8}  {'fit':>7}  {'bundle':>8}")
    for level, classifier in classifiers.items():
        test = classifier.record["test"]
        interval = f"{test['accuracy']:.3f} ({test['accuracy_low']:.3f} to {test['accuracy_high']:.3f})"
        size = sum(file.stat().st_size for file in (folder / level).iterdir()) / 1e6
        seconds = classifier.record["fit_seconds"]
        print(f"{level:<11}  {interval:<30}  {test['macro_f1']:>8.3f}  {seconds:>5.1f} s  {size:>5.1f} MB")
    for text in TEXTS:
        print(f"\n{text}")
        for level in LEVELS:
            found = TextClassifier.load(folder / level).predictions([text])[0]
            print(f"  {level:<11} {found.name:<9} {found.probability:.0%}")
    print(f'\nSaved in {folder}. Try: .venv/bin/textladder predict {folder}/lstm "your own text"')


def _fit(level: str, data: TextData, folder: Path) -> TextClassifier:
    monitor = monitor_for_terminal()
    classifier = TextClassifier(level, seed=0, **SETTINGS.get(level, {})).fit(data, monitor=monitor)
    classifier.record["test_rows"] = len(data.test)
    classifier.record["test"] = classifier.evaluate(data.test).as_dict()
    classifier.save(folder / level, overwrite=True)
    return classifier


if __name__ == "__main__":
    begun = time.perf_counter()
    try:
        main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/demo"))
    except TextladderError as error:
        raise SystemExit(fail(error)) from None
    print(f"The demo took {time.perf_counter() - begun:.0f} s.")
