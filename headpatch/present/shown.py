"""A figure that shows itself in a notebook, without pyplot. Imports matplotlib: import it late."""

from io import BytesIO
from typing import Final

from matplotlib.figure import Figure

from headpatch.present.canvas import styled

SCREEN: Final = 110
"""Dots per inch on a screen: a figure is 770 wide."""


class Shown(Figure):
    """A matplotlib figure in the house's style; a notebook shows it as the value of a cell."""

    def _repr_png_(self) -> bytes:
        """Return what Jupyter shows."""
        held = BytesIO()
        with styled():
            self.savefig(held, format="png", dpi=SCREEN)
        return held.getvalue()
