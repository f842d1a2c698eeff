"""Run the notebooks and write their outputs into them: ``python notebooks/make.py [NUMBER …]``."""

import os
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent
MOST = 1_000_000  # bytes of a notebook


def run(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        record_timing=False,  # else each run would differ
        resources={"metadata": {"path": str(HERE)}},
    ).execute()
    notebook.metadata["language_info"] = {"name": "python"}  # not the version that ran it
    text = nbformat.writes(notebook) + "\n"
    if len(text) > MOST:
        sys.exit(f"{path.name} would take {len(text):,} bytes; at most {MOST:,}")
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    # Two busy threads on shared cores can be 10-100 times slower than one; nothing is fetched.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")  # bars come to nothing on paper
    for path in sorted(HERE.glob("*.ipynb")):
        if len(sys.argv) == 1 or path.name.split("_")[0] in sys.argv[1:]:
            print(path.name, flush=True)
            run(path)
