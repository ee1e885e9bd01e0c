"""The levels of the ladder: one readable recipe per file, named in one table.

`LEVELS` maps a name to where its class is found, which is imported on use, so that asking for help imports neither
torch nor NumPy.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from textladder.errors import ConfigError, unknown_name

if TYPE_CHECKING:
    from textladder.levels.base import Level

LEVELS = {
    "tfidf": "textladder.levels.tfidf:TfidfLevel",
    "lstm": "textladder.levels.lstm:LSTMLevel",
    "ulmfit": "textladder.levels.ulmfit:UlmfitLevel",
    "transformer": "textladder.levels.transformer:TransformerLevel",
}


def find_level(name: str) -> "type[Level]":
    """The class of a level.

    Raises:
        ConfigError: there is no level with that name.
    """
    if name not in LEVELS:
        raise ConfigError(unknown_name("level", name, LEVELS))
    module, _, attribute = LEVELS[name].partition(":")
    level: type[Level] = getattr(import_module(module), attribute)
    return level
