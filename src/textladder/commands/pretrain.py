"""`textladder pretrain`: a language model for `ulmfit`, from texts without labels."""

import argparse
import math
from collections.abc import Sequence
from typing import Any

from textladder.commands.command import Command, add_fresh, kept_checkpoint, print_json, show, terminal_monitor
from textladder.flags import Parser, add_overwrite
from textladder.setting_flags import add_config_flag, add_settings, settings_of
from textladder.wording import counted


def add_flags(parser: Parser, words: Sequence[str]) -> None:
    """Add the text files, the folder to write, and the settings."""
    from textladder.training.pretraining import PretrainingConfig

    parser.add_argument("corpora", metavar="CORPUS", nargs="+", help="text files with one document per line (or .gz)")
    parser.add_argument("--out", required=True, metavar="FOLDER", help="folder to write the language model to")
    add_overwrite(parser, "the language model")
    add_fresh(parser)
    add_config_flag(parser)
    parser.add_argument("--seed", type=int, metavar="N", help="random seed [default: 0]")
    add_settings(parser.add_argument_group("settings"), PretrainingConfig)


def run(options: argparse.Namespace) -> None:
    """Pretrain, and print the epochs and the perplexity."""
    from textladder.training.pretraining import pretrain

    settings, seed = settings_of(options)
    found = pretrain(
        options.corpora,
        options.out,
        seed=seed,
        overwrite=options.overwrite,
        fresh=options.fresh,
        monitor=terminal_monitor(),
        **settings,
    )
    if options.json:
        print_json({"language_model": options.out, **found})
        return
    _print_epochs(found["epochs"])
    epochs = counted(round(found["epochs"][-1]["epoch"]), "epoch")
    show(
        f"Perplexity {found['perplexity']:.1f} on {found['held_out_tokens']:,} held-out tokens after {epochs} of "
        f"{found['tokens_per_epoch']:,} tokens ({found['parameters']:,} parameters);\n"
        f"{found['perplexity_per_written_word']:.1f} per whitespace-separated word."
    )
    show(
        f"Saved to {options.out}. Try: textladder train DATA --level ulmfit --language-model {options.out} --out BUNDLE"
    )


def _print_epochs(epochs: Sequence[dict[str, Any]]) -> None:
    show("epoch   train loss   held-out loss   perplexity   seconds")
    for row in epochs:
        held_out = f"{row['valid_loss']:13.3f}   {math.exp(row['valid_loss']):10.1f}"
        show(f"{row['epoch']:5g}   {row['train_loss']:10.3f}   {held_out}   {row['seconds']:7.1f}")


COMMAND = Command(
    "train a language model from texts without labels",
    add_flags,
    run,
    kept_checkpoint,
    usage="CORPUS... --out FOLDER [FLAGS]",
)
