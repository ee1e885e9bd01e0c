"""`textladder levels`: the levels and their presets."""

import argparse
from collections.abc import Sequence

from textladder.commands.command import Command, print_json, show
from textladder.flags import Parser


def add_flags(parser: Parser, words: Sequence[str]) -> None:
    """Add nothing: the command has no flags of its own."""


def run(options: argparse.Namespace) -> None:
    """List the levels with their presets."""
    from textladder.levels import LEVELS, find_level

    levels = {name: find_level(name) for name in LEVELS}
    if options.json:
        described = [
            {
                "level": name,
                "summary": level.summary,
                "presets": {preset: known.help for preset, known in level.presets.items()},
            }
            for name, level in levels.items()
        ]
        print_json({"levels": described})
        return
    for name, level in levels.items():
        show(f"{name:<11} {level.summary}")
        for preset, known in level.presets.items():
            show(f"  --preset {preset:<9} {known.help}")


COMMAND = Command("list the levels and their presets", add_flags, run)
