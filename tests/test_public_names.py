"""The public names where torch is not installed: what needs none of it works, and the rest says how to install it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import textladder
from textladder.errors import MissingExtraError, MissingLibraryError, MissingNameError, TextladderError

HIDE = "import sys\nsys.modules['torch'] = None\n"
INSTALL = "needs torch, which is not installed: run pip install 'textladder[train]'"


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", HIDE + code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "code",
    [
        "import textladder\nassert not hasattr(textladder, 'LSTMClassifier')",
        "import textladder\nassert getattr(textladder, 'LSTMClassifier', 3) == 3",
        "import inspect, textladder\nassert 'TextClassifier' in dict(inspect.getmembers(textladder))",
        "import pydoc, textladder\nassert 'class TextClassifier' in pydoc.plain(pydoc.render_doc(textladder))",
        "from textladder import *\nassert basic_english('a b') == ['a', 'b']\nassert 'LSTMClassifier' not in globals()",
        "from textladder import TextClassifier, read_texts\nTextClassifier('tfidf')\nread_texts('sentences.csv')",
        "import textladder\nassert 'LSTMClassifier' not in dir(textladder)",
    ],
)
def test_without_torch_the_rest_works(code: str, sentences_file: Path) -> None:
    done = python(code.replace("sentences.csv", str(sentences_file)))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("import textladder\ntextladder.LSTMClassifier", "MissingNameError"),
        ("from textladder import LSTMClassifier", "MissingLibraryError"),
    ],
)
def test_using_a_name_that_needs_torch_says_the_command(code: str, kind: str) -> None:
    done = python(code)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"textladder.errors.{kind}: ")
    assert INSTALL in last
    assert "No module named" not in done.stderr


def test_with_torch_every_name_is_there() -> None:
    assert "LSTMClassifier" in textladder.__all__
    assert set(textladder._EXTRAS) <= set(textladder._HOMES)
    for name in textladder.__all__:
        assert hasattr(textladder, name)


def test_kinds_of_missing_extras() -> None:
    assert issubclass(MissingLibraryError, ImportError)
    assert issubclass(MissingNameError, AttributeError)
    for kind in (MissingLibraryError, MissingNameError):
        assert issubclass(kind, MissingExtraError)
        assert issubclass(kind, TextladderError)


@pytest.mark.parametrize(("variable", "spin"), [(None, "1000"), ("GOMP_SPINCOUNT", "7"), ("OMP_WAIT_POLICY", "None")])
def test_waiting_threads_spin_for_a_bounded_time(variable: str | None, spin: str) -> None:
    """Unless the user chose how long; torch reads the variable when it is loaded."""
    given = {name: value for name, value in os.environ.items() if not name.startswith(("GOMP_", "OMP_"))}
    given |= {variable: "7"} if variable else {}
    code = "import textladder, os; print(os.environ.get('GOMP_SPINCOUNT'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=given)
    assert done.stdout.strip() == spin
