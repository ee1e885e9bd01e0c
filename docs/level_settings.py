"""Directives for the site's pages about levels, written from the code that defines the levels.

- `levels`: every level with its summary and, where `docs/levels/` has no page for it, its settings.
- `level-pages`: a hidden table of contents of the levels' pages, from the lowest level to the highest.
- `level-settings NAME`: a level's settings and presets as tables.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.directives.other import TocTree
from sphinx.util.docutils import SphinxDirective

from textladder.levels import LEVELS, find_level
from textladder.settings import limits_text, value_text

FOLDER = "levels"


class Levels(SphinxDirective):
    """Every level of `LEVELS`, so that a new one is on the site before it has a page."""

    def run(self) -> list[nodes.Node]:
        """A paragraph for each level, with its settings where it has no page."""
        pages = level_pages(Path(self.env.srcdir))
        found: list[nodes.Node] = []
        for name in LEVELS:
            level = find_level(name)
            page = f"{FOLDER}/{name}"
            text = nodes.paragraph(
                "", "", _link(page, name, self.env.docname) if page in pages else nodes.literal(name, name)
            )
            text += nodes.Text(f": {level.summary}.")
            found += [text] if page in pages else [text, *level_tables(name)]
        return found


class LevelPages(TocTree):
    """The table of contents of the levels' pages."""

    def run(self) -> list[nodes.Node]:
        """What `toctree` makes of the pages."""
        pages = [f"/{page}" for page in level_pages(Path(self.env.srcdir))]
        self.content = StringList(pages, source="level-pages")
        self.options["hidden"] = True
        return super().run()


class LevelSettings(SphinxDirective):
    """Flags with their defaults and their help, then what each preset changes."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The two tables."""
        return level_tables(self.arguments[0])


def level_pages(docs: Path) -> list[str]:
    """The levels' pages that exist, in the order of `LEVELS`, as Sphinx names them."""
    return [f"{FOLDER}/{name}" for name in LEVELS if (docs / FOLDER / f"{name}.md").exists()]


def level_tables(name: str) -> list[nodes.Node]:
    """A level's settings and its presets.

    Raises:
        ConfigError: there is no level of that name.
    """
    level = find_level(name)
    settings = [
        (f"--{one.name.replace('_', '-')}", _default(one.default), limits_text(one) or "-", one.metadata["help"])
        for one in dataclasses.fields(level.config_type)
    ]
    presets = [
        (name, ", ".join(f"{key} {value_text(value)}" for key, value in preset.settings.items()) or "-", preset.help)
        for name, preset in level.presets.items()
    ]
    return [
        _table(("flag", "default", "allowed", "what it does"), settings, (24, 16, 16, 44)),
        _table(("preset", "settings", "what it is for"), presets, (12, 52, 36)),
    ]


def _default(value: Any) -> str:
    return "-" if value is None else value_text(value)  # None stands for what the help says


def _link(page: str, title: str, docname: str) -> nodes.Node:
    """A reference to a page of the site, from the page `docname`."""
    link = addnodes.pending_xref(
        "", reftype="doc", refdomain="std", refexplicit=True, reftarget=f"/{page}", refdoc=docname, refwarn=True
    )
    link += nodes.literal(title, title)
    return link


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
    """Register the directives; Sphinx calls this."""
    app.add_directive("levels", Levels)
    app.add_directive("level-pages", LevelPages)
    app.add_directive("level-settings", LevelSettings)
    return {"parallel_read_safe": True}
