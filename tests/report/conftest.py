from collections.abc import Iterator
from pathlib import Path

import pytest

from headpatch.present import canvas


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
    monkeypatch.setitem(canvas._STYLE, "savefig.dpi", 40)
