"""Options of `headpatch rank`."""

from headpatch.core.study.options import Count, Positive, Strict


class RankOptions(Strict):
    """How heads are ranked."""

    top: Positive = 20
    """Heads listed, drawn and counted by layer."""
    overlays: Count = 3
    """Heads whose attention is drawn over the pictures."""
