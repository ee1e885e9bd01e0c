"""The docs against the program: public names, commands and flags, links, and the notebook's steps and outputs."""

import ast
import hashlib
import pydoc
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
import torch

import textladder
from textladder.cli import parse

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
SLIPS = (
    "the last state after the padding",
    "zeros for words without a vector",
    "the vocabulary of another tokenizer",
    "every text padded to 512",
    "a transformer's learning rate of 3e-4",
    "one run on 2,000 rows as a verdict",
)
# what the notebook writes out, and the call that does the same, which comes later
WRITTEN_OUT = (
    ("TfidfVectorizer", 'TextClassifier("tfidf"'),
    ("class ReviewDataset(torch.utils.data.Dataset)", "text_data_loaders("),
    ("class LastStateLSTM(nn.Module)", "LSTMClassifier("),
    ("DataBlock(", "AWDClassifier("),
    ("class SubwordDataset(torch.utils.data.Dataset)", "load_encoder("),
    ("class Logits(nn.Module)", "load_encoder("),
)
PARTS = 10  # with exercises; a summary and the solutions follow
CODE_WIDTH = 88  # columns that the site shows without a scroll bar
MOST_LINES = 20


@pytest.fixture(scope="module")
def notebook() -> Any:
    return nbformat.read(DOCS / "tutorial.ipynb", as_version=4)


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def solution(notebook: Any) -> Any:
    (cell,) = (cell for cell in code_cells(notebook) if "solution" in cell.metadata.get("tags", []))
    return cell


def names_in(code: str) -> set[str]:
    """Names and attributes that some code uses."""
    tree = ast.walk(ast.parse(code))
    return {
        node.id if isinstance(node, ast.Name) else node.attr
        for node in tree
        if hasattr(node, "id") or hasattr(node, "attr")
    }


def blocks(page: Path, language: str) -> Iterator[str]:
    fences = re.findall(r"^```([^\n]*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    yield from (block for name, block in fences if name == language)


def test_every_public_name_is_used(notebook: Any) -> None:
    """In the notebook, in a level's page, or in the page on reading."""
    code = [cell.source for cell in code_cells(notebook)]
    pages = [*(DOCS / "levels").glob("*.md"), DOCS / "reading.md"]
    code += [block for page in pages for block in blocks(page, "python")]
    used = set().union(*map(names_in, code))
    assert sorted(set(textladder.__all__) - used) == []


def test_code_in_pages_is_code() -> None:
    for page in PAGES:
        for block in blocks(page, "python"):
            ast.parse(block)


def commands() -> list[str]:
    """Every line of the pages that calls `textladder` with flags or a file, without its comment."""
    found = []
    for page in PAGES:
        for block in blocks(page, ""):
            for line in block.replace("\\\n", " ").splitlines():
                for part in line.split("&&"):
                    words = part.strip().removeprefix("$ ")
                    if words.startswith("textladder ") and "[" not in words:
                        found.append(words)
    return found


@pytest.mark.parametrize("line", sorted(set(commands())))
def test_commands_in_pages_are_commands(line: str) -> None:
    """Every command and flag is one that the program knows."""
    words = shlex.split(line, comments=True)[1:]
    if "--help" in words:
        with pytest.raises(SystemExit, match="^0$"):
            parse(words)
    else:
        parse(words)


def test_links_lead_somewhere() -> None:
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md"):
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert "://" in target or (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_notebook_was_run_from_top_to_bottom(notebook: Any) -> None:
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [one for one in outputs if one.output_type == "error" or one.get("name") == "stderr"]
    assert sum("image/png" in one.get("data", {}) for one in outputs) >= 4
    sources = "\0".join(cell.source for cell in cells)
    assert notebook.metadata["textladder"]["code"] == hashlib.sha256(sources.encode()).hexdigest(), (
        "the cells changed since their outputs were made: python docs/refresh.py"
    )


def test_each_slip_has_its_figure(notebook: Any) -> None:
    shown = "".join(
        output.data["text/html"]
        for cell in code_cells(notebook)
        for output in cell.outputs
        if "text/html" in output.get("data", {})
    )
    for slip in SLIPS:
        assert re.search(rf"<th>{re.escape(slip)}</th>\s*<td>[^<]*\d[^<]*</td>", shown), slip


@pytest.mark.parametrize(("written_out", "call"), WRITTEN_OUT)
def test_steps_are_written_out_before_the_call(notebook: Any, written_out: str, call: str) -> None:
    code = "\n".join(cell.source for cell in code_cells(notebook))
    assert -1 < code.find(written_out) < code.find(call)


def test_each_part_ends_with_exercises(notebook: Any) -> None:
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    parts = re.split(r"^## \d+\. ", text, flags=re.MULTILINE)[1:]
    assert len(parts) > PARTS
    for part in parts[:PARTS]:
        _, exercises = part.split("**Exercises**")
        assert len(re.findall(r"^\d\. ", exercises, flags=re.MULTILINE)) >= 2, part.splitlines()[0]


def test_the_notebooks_code_fits_the_site(notebook: Any) -> None:
    lines = [line for cell in code_cells(notebook) for line in cell.source.splitlines()]
    assert [line for line in lines if len(line) > CODE_WIDTH] == []


def test_the_solution_needs_only_what_the_notebook_showed(notebook: Any) -> None:
    cell = solution(notebook)
    lines = [line for line in cell.source.splitlines() if line.strip()]
    assert len(lines) < MOST_LINES
    before = notebook.cells[: notebook.cells.index(cell)]
    shown = " ".join(one.source for one in before)
    own = {node.name for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.FunctionDef)}
    own |= {node.arg for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.arg)}
    stored = {
        node.id
        for node in ast.walk(ast.parse(cell.source))
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    unknown = {name for name in names_in(cell.source) - own - stored if not re.search(rf"\b{name}\b", shown)}
    # what PyTorch and NumPy call them
    assert unknown <= {"logsumexp", "log", "sum", "stack"}


def test_the_solutions_pooling_reads_no_padding(notebook: Any) -> None:
    """The function of the committed solution, in a network of its own."""
    function = next(node for node in ast.parse(solution(notebook).source).body if isinstance(node, ast.FunctionDef))
    names: dict[str, Any] = {"torch": torch}
    exec(ast.unparse(function), names)
    torch.manual_seed(0)
    network = textladder.LSTMClassifier(20, 6, 2, hidden_size=4, pooling=(names[function.name],)).eval()
    short = torch.tensor([[4, 5, 6]])
    padded = torch.tensor([[4, 5, 6, 1, 1, 1], [7, 8, 9, 10, 11, 12]])
    assert torch.allclose(network(short)[0], network(padded)[0], atol=1e-6)


def test_the_names_in_the_reference_exist() -> None:
    """Every name that docs/api.md documents can be imported from where the page says."""
    names = re.findall(r"^\.\. auto\w+:: (\S+)$", (DOCS / "api.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(names) > 30
    for name in names:
        assert pydoc.locate(name) is not None, name
