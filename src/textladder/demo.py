"""`make demo`: compare every level on the embedded sample, recommend one, and classify some texts with it.

    python -m textladder.demo [FOLDER]

The same steps as `compare` and `predict` on your own file; needs no data and no network.
"""

import sys
import textwrap
import time
from pathlib import Path

from textladder.classifier import TextClassifier
from textladder.cli import fail
from textladder.comparison.compare import compare
from textladder.data.labelled_texts import read_texts
from textladder.errors import TextladderError
from textladder.progress import monitor_for_terminal
from textladder.wording import seconds_words

TEXTS = (
    "The kettle boils fast and the handle stays cool. Bought a second one for my mother.",
    "Stopped charging after nine days, and the seller never answered.",
    "I expected to send it back. I was wrong, it hasn't let me down once.",
)
# an encoder that is installed as a package, so that the demo needs no network
SETTINGS = {"transformer": {"encoder": "all-MiniLM-L6-v2"}}
ROWS = 200  # of 748; takes about six minutes on two old cores
COMMAND = f"textladder compare sample --rows {ROWS} --encoder all-MiniLM-L6-v2 --seeds 1 --out"


def main(folder: Path) -> None:
    """Compare all levels, classify some texts with the recommended one, and write the report to `folder`."""
    data = read_texts("sample", rows=ROWS)
    print("Data:", data.description.partition("): ")[2], flush=True)
    found = compare(
        data,
        settings=SETTINGS,
        seeds=1,
        out=folder,
        overwrite=True,
        command=f"{COMMAND} {folder}",
        monitor=monitor_for_terminal(),
    )
    assert found.recommended is not None  # without terms, some level is always recommended
    bundle = found[found.recommended].kept.bundle
    print(f"\n{found.text_table()}\n\nPredictions of {found.recommended}:")
    for text, prediction in zip(TEXTS, TextClassifier.load(bundle).predictions(TEXTS), strict=True):
        print(f"  {prediction.name:<9} {prediction.probability:.0%}  {textwrap.shorten(text, 64, placeholder='...')}")
    print(f'Try: .venv/bin/textladder predict {bundle} "your own text"\n')
    print(textwrap.fill(found.verdict, 80))
    print(f"Report: {folder}/report.html")


if __name__ == "__main__":
    started = time.perf_counter()
    try:
        main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/demo"))
    except TextladderError as error:
        raise SystemExit(fail(error)) from None
    print(f"The demo took {seconds_words(time.perf_counter() - started)}.")
