"""Run `tutorial.ipynb` from top to bottom and keep what it shows in it.

    python docs/refresh.py [--out FOLDER]

Without `--out` the notebook itself gets the new outputs. A cell that fails, or takes a quarter of an hour, ends it with
a traceback: it is meant for the embedded sample.
"""

import argparse
import hashlib
import tempfile
import time
from pathlib import Path

import nbformat
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).with_name("tutorial.ipynb")
MOST_SECONDS = 900  # of a cell: a busy machine, not a hanging one


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="write the executed notebook into this folder instead")
    out: Path | None = parser.parse_args().out
    notebook = nbformat.reads(NOTEBOOK.read_text(encoding="utf-8"), as_version=4)  # type: ignore[no-untyped-call]
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:  # of the kernel's sockets: no port that others could reach
        kernel = KernelManager(kernel_name="python3", transport="ipc", ip=f"{folder}/kernel")
        client = NotebookClient(notebook, kernel, timeout=MOST_SECONDS, record_timing=False)
        client.on_cell_executed = lambda cell, cell_index, execute_reply: print(
            f"{time.perf_counter() - begun:6.1f} s  {cell['source'].partition(chr(10))[0][:80]}", flush=True
        )
        try:
            client.execute()
        finally:
            kernel.shutdown_kernel(now=True)
    sources = "\0".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
        "textladder": {"code": hashlib.sha256(sources.encode()).hexdigest()},  # a test holds the outputs to it
    }
    target = NOTEBOOK if out is None else out / NOTEBOOK.name
    target.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, target)  # type: ignore[no-untyped-call]
    print(f"\n{target}: executed in {time.perf_counter() - begun:.0f} s.")


if __name__ == "__main__":
    main()
