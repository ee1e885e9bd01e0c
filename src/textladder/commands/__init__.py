"""The commands of `textladder`: one file each, named in one table in the order of `textladder --help`."""

from textladder.commands import (
    audit,
    compare,
    evaluate,
    explain,
    export,
    inspect,
    levels,
    lr_find,
    predict,
    pretrain,
    serve,
    train,
)
from textladder.commands.command import Command

COMMANDS: dict[str, Command] = {
    "compare": compare.COMMAND,
    "train": train.COMMAND,
    "evaluate": evaluate.COMMAND,
    "predict": predict.COMMAND,
    "explain": explain.COMMAND,
    "export": export.COMMAND,
    "serve": serve.COMMAND,
    "inspect": inspect.COMMAND,
    "audit": audit.COMMAND,
    "lr-find": lr_find.COMMAND,
    "pretrain": pretrain.COMMAND,
    "levels": levels.COMMAND,
}
