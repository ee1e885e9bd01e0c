"""The directive `level-settings NAME`: a level's settings and presets as tables, from the code that defines them."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from textladder.levels import find_level


class LevelSettings(SphinxDirective):
    """Flags with their defaults and their help, then what each preset changes."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The two tables."""
        level = find_level(self.arguments[0])
        fields = dataclasses.fields(level.config_type)
        settings = [(f"--{one.name.replace('_', '-')}", written(one.default), _help(one)) for one in fields]
        presets = [
            (name, ", ".join(f"{key} {written(value)}" for key, value in preset.settings.items()) or "-", preset.help)
            for name, preset in level.presets.items()
        ]
        return [
            _table(("flag", "default", "what it does"), settings, (24, 18, 58)),
            _table(("preset", "settings", "what it is for"), presets, (12, 52, 36)),
        ]


def _help(field: "dataclasses.Field[Any]") -> str:
    choices = field.metadata.get("choices")
    return str(field.metadata["help"]) + (f" ({', '.join(choices)})" if choices and "none" not in choices else "")


def written(value: Any) -> str:
    """A setting's value as a person would write it."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ",".join(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]], widths: tuple[int, ...]) -> nodes.table:
    group = nodes.tgroup(cols=len(head))
    group += [nodes.colspec(colwidth=width) for width in widths]
    group += nodes.thead("", _row(head, literal=False))
    group += nodes.tbody("", *(_row(row) for row in rows))
    return nodes.table("", group)


def _row(cells: tuple[str, ...], literal: bool = True) -> nodes.row:
    row = nodes.row()
    for number, cell in enumerate(cells):
        inside = nodes.literal(cell, cell) if literal and number == 0 else nodes.Text(cell)
        row += nodes.entry("", nodes.paragraph("", "", inside))
    return row


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls."""
    app.add_directive("level-settings", LevelSettings)
    return {"parallel_read_safe": True}
