"""A figure that shows itself in a notebook, without pyplot. Imports matplotlib: import it late."""

from io import BytesIO
from typing import Final

from matplotlib.figure import Figure

from headpatch.present.canvas import styled

_SCREEN: Final = 110  # dots per inch on a screen: a figure is 770 wide


class Shown(Figure):
    """A matplotlib figure in the house's style; at the top of a module, it can be pickled."""

    def _repr_png_(self) -> bytes:
        held = BytesIO()
        with styled():
            self.savefig(held, format="png", dpi=_SCREEN)
        return held.getvalue()
