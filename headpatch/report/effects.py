"""Names of `headpatch.present.effects_view`, for figures that still look for them here."""

from headpatch.present.effects_view import DIRECTIONS, KINDS, changed_at, in_order, row_names

__all__ = ["DIRECTIONS", "KINDS", "changed_at", "in_order", "row_names"]
