"""What every test runs under: no network, one thread, no screen, shapes and types checked."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

# Set before torch, transformers and matplotlib are imported, here and in child processes.
os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", MPLBACKEND="Agg")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from hypothesis import settings

from tests import checking, compared_once

torch.set_num_threads(1)

# The hook sees only modules that are imported after it.
assert not any(name.split(".")[0] == "headpatch" for name in sys.modules)
checking.install("headpatch")

# The first draw may load a model, so no deadline; CI draws the same examples each time.
settings.register_profile("headpatch", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("headpatch")


@pytest.fixture(scope="session", autouse=True)
def _bundled_model_is_compared_once() -> Iterator[None]:
    if "headpatch.engine.selfcheck" not in sys.modules:  # nothing that is tested opens a study
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        compared_once.install(patch)
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest, so that no worker is left with one of them at the end."""
    items.sort(key=lambda item: "test_notebooks" not in item.nodeid)


class Drawn:
    """The figures that were saved, in order, with their place."""

    def __init__(self) -> None:
        self.figures = []
        self.paths: list[Path] = []

    @property
    def last(self):
        return self.figures[-1]

    def texts(self) -> list[str]:
        from matplotlib.text import Text

        return [t.get_text() for t in self.last.findobj(Text) if t.get_visible() and t.get_text()]


@pytest.fixture
def drawn(monkeypatch) -> Iterator[Drawn]:
    """Keep each figure as it was when it was saved."""
    from headpatch.present import canvas

    kept, save = Drawn(), canvas._save

    def keep(figure, path):
        save(figure, path)
        kept.figures.append(figure)
        kept.paths.append(path)

    monkeypatch.setattr(canvas, "_save", keep)
    return kept


@pytest.fixture
def draft(monkeypatch) -> None:
    """Save at low resolution: for tests that look at the figure, not at the file."""
    from headpatch.present import canvas

    monkeypatch.setitem(canvas._STYLE, "savefig.dpi", 40)


@pytest.fixture
def undrawn(monkeypatch) -> None:
    """Leave figures blank, which take most of a run's time: each question's are drawn elsewhere."""
    monkeypatch.setattr(
        "headpatch.core.output.writing.draw", lambda part, target, **_: target.touch()
    )
