"""A reader in a loop beside a writer in a loop: the bundle is the old one or the new one, and never neither."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from textladder import TextClassifier

LOADS = 10_000
REPLACE = """
import sys
from textladder import TextClassifier
one, other = (TextClassifier.load(path) for path in sys.argv[1:3])
print("ready", flush=True)
while True:
    one.save(sys.argv[3], overwrite=True)
    other.save(sys.argv[3], overwrite=True)
"""


@pytest.mark.slow
def test_a_reader_never_misses_a_bundle_that_is_replaced_all_the_time(
    fitted: Callable[[str], Any], tmp_path: Path
) -> None:
    classifier = fitted("tfidf")
    one, other, shared = (classifier.save(tmp_path / name) for name in ("one", "other", "shared"))
    labels, seen = classifier.labels, set()
    command = [sys.executable, "-c", REPLACE, str(one), str(other), str(shared)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            for _ in range(LOADS):
                assert TextClassifier.load(shared).labels == labels
                seen.add(shared.stat().st_mtime_ns)
            assert process.poll() is None
        finally:
            process.kill()
    assert len(seen) > 100
    classifier.save(shared, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "other", "shared"]
