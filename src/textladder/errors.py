"""Everything that textladder raises on purpose, and the wording of such errors.

    TextladderError                a mistake that the user can fix; the command prints it and exits with status 2
    ├── DataError                  a file, its columns, its labels or its texts
    ├── ConfigError                an unknown level, preset, format or setting, or a value out of bounds
    ├── BundleError                a saved classifier that is missing, damaged, too new or cannot be trusted
    ├── ExportError                an exported network that does not predict as the original does
    ├── PretrainedError            vectors, weights or a known data set that could not be found or downloaded
    └── MissingExtraError          a library that an optional extra of textladder installs
        ├── MissingLibraryError    ... as it is imported; also an ImportError
        └── MissingNameError       ... as a public name that needs it is used; also an AttributeError

An error says what is wrong, what was received, and how to fix it, for a caller in Python: an argument is written
`overwrite=True`, which the command line prints as `--overwrite`. Anything else that is raised is a bug.
"""

import difflib
import importlib
import importlib.util
import warnings
from collections.abc import Iterable
from types import ModuleType


class TextladderError(Exception):
    """A mistake that the user can fix; the message is one sentence that says how."""


class DataError(TextladderError):
    """The data cannot be used as it is."""


class ConfigError(TextladderError, ValueError):
    """A name or a value that textladder does not accept."""


class BundleError(TextladderError):
    """A saved classifier that cannot be read or trusted."""


class ExportError(TextladderError):
    """An exported network whose predictions differ from the original's."""


class PretrainedError(TextladderError):
    """Pretrained vectors, weights or a known data set that could not be found or downloaded."""


class MissingExtraError(TextladderError):
    """A library that is not installed; the message has the command that installs it."""


class MissingLibraryError(MissingExtraError, ImportError):
    """What `import_extra` raises. (No class can be an ImportError and an AttributeError.)"""


class MissingNameError(MissingExtraError, AttributeError):
    """What a public name of `textladder` raises if its library is missing, so that `hasattr` is False."""


def unknown_name(kind: str, received: str, available: Iterable[str]) -> str:
    """The sentence for an unknown name, with the nearest known one.

    Args:
        kind: what is named.
        received: the unknown name.
        available: the names to choose from.

    >>> unknown_name("level", "bert", ["tfidf", "lstm"])
    "Unknown level 'bert'. Available: tfidf, lstm."
    >>> unknown_name("level", "lsmt", ["tfidf", "lstm"])
    "Unknown level 'lsmt'. Available: tfidf, lstm. Did you mean 'lstm'?"
    """
    names = list(available)
    near = difflib.get_close_matches(received, names, n=1, cutoff=0.6)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"Unknown {kind} {received!r}. Available: {', '.join(names)}.{hint}"


def first_line(error: BaseException) -> str:
    """The first line of an error's message, for a sentence that quotes it; at most 200 characters.

    >>> first_line(ValueError("bad header.\\nat line 3"))
    'bad header'
    """
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:200].rstrip(".")


def not_installed(library: str, extra: str) -> str:
    """The sentence for a missing library, with the command that installs it.

    >>> not_installed("torch", "train")
    "This needs torch, which is not installed: run pip install 'textladder[train]'."
    """
    return f"This needs {library}, which is not installed: run pip install 'textladder[{extra}]'."


def missing_library(modules: Iterable[str]) -> str | None:
    """The first library of some modules that is not installed; None if all are. Imports none of them.

    >>> missing_library(["json", "no_such_library.part"])
    'no_such_library'
    """
    libraries = (module.split(".")[0] for module in modules)
    return next((one for one in libraries if importlib.util.find_spec(one) is None), None)


def import_extra(module: str, extra: str) -> ModuleType:
    """Import a library that an extra of textladder installs, without the warnings that it raises about itself.

    Raises:
        MissingLibraryError: it is not installed; the message has the command that installs it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        library = module.split(".")[0]
        raise MissingLibraryError(not_installed(library, extra)) from None
