"""Every notebook runs from top to bottom on the bundled model; its outputs are committed.

One process runs them all, so that torch is imported and the bundled model is loaded and checked
once; each begins without any names.
"""

from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.util import run_sync
from nbformat import NotebookNode

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
NEEDS = {"5_transformer_lens": "transformer_lens"}
MOST = 1_000_000  # bytes
ONCE = """\
import sys
from functools import cache
from pathlib import Path
sys.path.insert(0, str(Path("..").resolve()))
import pytest
from headpatch.core import session
from tests import compared_once
session.load = cache(session.load)
compared_once.install(pytest.MonkeyPatch())
"""


def notebook_of(*cells: str) -> NotebookNode:
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(one) for one in cells])


def shown(notebook: NotebookNode) -> list[list[NotebookNode]]:
    return [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]


@pytest.fixture(scope="module")
def kernel() -> Iterator[AsyncKernelManager]:
    manager = AsyncKernelManager(kernel_name="python3")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TQDM_DISABLE", "1")  # as notebooks/make.py does
        run_sync(manager.start_kernel)(cwd=str(FOLDER))
        NotebookClient(notebook_of(ONCE), timeout=300, km=manager).execute()
    yield manager
    run_sync(manager.shutdown_kernel)(now=True)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs(path: Path, kernel: AsyncKernelManager) -> None:
    if path.stem in NEEDS:
        pytest.importorskip(NEEDS[path.stem])
    notebook = nbformat.read(path, as_version=4)
    for one in (notebook_of("%reset -f"), notebook):
        NotebookClient(one, timeout=300, km=kernel).execute()
    outputs = [one for cell in shown(notebook) for one in cell]
    assert all(shown(notebook)), "a cell shows nothing"
    assert not [one.text for one in outputs if one.get("name") == "stderr"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_is_committed_with_outputs(path: Path) -> None:
    assert path.stat().st_size < MOST
    text = path.read_text(encoding="utf-8")
    assert '"image/png"' in text
    assert not [place for place in ("/home/", "/tmp/", "/work/", "site-packages") if place in text]
    assert all(shown(nbformat.reads(text, as_version=4))), "a cell shows nothing"
