"""Every notebook runs from top to bottom on the bundled model; its outputs are committed."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
NEEDS = {"5_transformer_lens": "transformer_lens"}
MOST = 1_000_000  # bytes


def shown(notebook: NotebookNode) -> list[list[NotebookNode]]:
    return [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TQDM_DISABLE", "1")  # as notebooks/make.py does
    if path.stem in NEEDS:
        pytest.importorskip(NEEDS[path.stem])
    notebook = nbformat.read(path, as_version=4)
    where = {"metadata": {"path": str(FOLDER)}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=where).execute()
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
