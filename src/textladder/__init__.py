"""textladder: text classifiers of increasing complexity, compared on your own labelled texts.

The public names are loaded on first use (PEP 562), so that `import textladder` costs nothing.
"""

import os
import sys
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from textladder.audit import Audit, audit_texts
    from textladder.classifier import Prediction, TextClassifier
    from textladder.comparison.compare import compare
    from textladder.comparison.results import Comparison
    from textladder.comparison.verdict import Terms
    from textladder.data.inspection import Inspection, inspect_rows
    from textladder.data.labelled_texts import LabelledTexts, TextData, read_texts
    from textladder.errors import TextladderError
    from textladder.explain import Explanation, explain_text
    from textladder.export import Export, export_bundle
    from textladder.metrics import Evaluation
    from textladder.networks.lstm import LSTMClassifier
    from textladder.text.tokenizer import basic_english
    from textladder.text.vectors import WordVectors, load_vectors
    from textladder.text.vocabulary import Vocabulary

__version__ = "0.1.0"

# Threads of torch that wait for each other spin for milliseconds by default (GNU's OpenMP, which reads this when torch
# is loaded). Beside other busy processes the one that they wait for may not be running, and the spinning keeps it from
# a core: on two busy cores a fit of `lstm` took 3 times as long as alone in one run and over 12 times in another; with
# a thousand turns, some microseconds, 1.8 times. Alone it makes no difference.
if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
    os.environ["GOMP_SPINCOUNT"] = "1000"

_HOMES = {
    "Audit": "audit",
    "Comparison": "comparison.results",
    "Evaluation": "metrics",
    "Explanation": "explain",
    "Export": "export",
    "Inspection": "data.inspection",
    "LSTMClassifier": "networks.lstm",
    "LabelledTexts": "data.labelled_texts",
    "Prediction": "classifier",
    "Terms": "comparison.verdict",
    "TextClassifier": "classifier",
    "TextData": "data.labelled_texts",
    "TextladderError": "errors",
    "Vocabulary": "text.vocabulary",
    "WordVectors": "text.vectors",
    "audit_texts": "audit",
    "basic_english": "text.tokenizer",
    "compare": "comparison.compare",
    "explain_text": "explain",
    "export_bundle": "export",
    "inspect_rows": "data.inspection",
    "load_vectors": "text.vectors",
    "read_texts": "data.labelled_texts",
}
_EXTRAS = {"LSTMClassifier": ("torch", "train")}  # the library that a name needs, and the extra that installs it

__all__ = [
    "Audit",
    "Comparison",
    "Evaluation",
    "Explanation",
    "Export",
    "Inspection",
    "LSTMClassifier",
    "LabelledTexts",
    "Prediction",
    "Terms",
    "TextClassifier",
    "TextData",
    "TextladderError",
    "Vocabulary",
    "WordVectors",
    "__version__",
    "audit_texts",
    "basic_english",
    "compare",
    "explain_text",
    "export_bundle",
    "inspect_rows",
    "load_vectors",
    "read_texts",
]
for _name, (_library, _) in _EXTRAS.items():
    if find_spec(_library) is None:  # then `from textladder import *` and `help(textladder)` do without the name
        __all__.remove(_name)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'textladder' has no attribute {name!r}")
    library, extra = _EXTRAS.get(name, ("", ""))
    if library:
        from textladder.errors import MissingLibraryError, MissingNameError, import_extra

        try:
            import_extra(library, extra)
        except MissingLibraryError as error:
            # `from textladder import NAME` asks through this function, and would replace an AttributeError's message
            if sys._getframe(1).f_code.co_name == "_handle_fromlist":
                raise
            raise MissingNameError(str(error)) from None  # so that `hasattr` says no
    return getattr(import_module(f"textladder.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
