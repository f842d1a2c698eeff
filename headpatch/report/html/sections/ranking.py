"""Every head in a table that can be sorted and searched."""

from typing import Any

from headpatch.core.output.folder import Results
from headpatch.present.section import Section
from headpatch.report.html.heads import Heads, heads_of

_PLACE = {"kind": "place", "digits": 0}
_SHARE = {"kind": "number", "digits": 3}


def section(results: Results) -> Section | None:
    """Make the table; None if no run says anything of every head."""
    heads = heads_of(results)
    if heads is None:
        return None
    return Section(
        "ranking",
        "All heads",
        {
            "count": heads.shape[0] * heads.shape[1],
            "judged": heads.verdict is not None,
            "classes": _classes(heads),
            "raw": bool(heads.looks) and "diff_raw" in heads.looks[0].figures,
        },
        {},
        {"columns": columns(heads)},
    )


def _classes(heads: Heads) -> list[str]:
    """The classes that occur, the strongest first."""
    from headpatch.report.html.heads import VERDICTS

    if heads.verdict is None:
        return []
    return [name for name in VERDICTS if (heads.verdict == name).any()]


def columns(heads: Heads) -> list[dict[str, Any]]:
    """Describe the table's columns: where in the page's data each finds its values."""
    found: list[dict[str, Any]] = []
    if heads.looks:
        look = heads.looks[0]
        names = {
            "diff": ("Attention diff.", "share of image attention on the region, with − without"),
            "with": ("with", "share with the object"),
            "without": ("without", "share without the object"),
            "diff_raw": ("raw diff.", "the same difference, as a part of all attention"),
        }
        found.append(
            {"label": "Place", "title": "1 = largest attention difference",
             "from": ["looks", 0, "rank"], **_PLACE}
        )  # fmt: skip
        for name, (label, title) in names.items():
            if name in look.figures:
                digits = 4 if name == "diff_raw" else 3
                found.append({"label": label, "title": f"{title} ({look.label})",
                              "from": ["looks", 0, name], **_SHARE, "digits": digits})  # fmt: skip
    kind = heads.effects[0].kind if heads.effects else ""
    where = heads.effects[0].where if heads.effects else ""
    for index, effect in enumerate(heads.effects):
        if (effect.kind, effect.where) != (kind, where):
            continue
        asked = {"noising": "Necessity", "denoising": "Sufficiency"}[effect.direction]
        found.append(
            {
                "label": asked,
                "title": f"normalized effect of {effect.label}",
                "from": ["effects", index, "normalized"],
                "interval": [["effects", index, "low"], ["effects", index, "high"]]
                if {"low", "high"} <= set(effect.figures)
                else None,
                "floor": True,
                "kind": "number",
                "digits": 4,
            }
        )
        if "q" in effect.figures:
            found.append({"label": "q", "title": f"Benjamini-Hochberg q of {asked.lower()}",
                          "from": ["effects", index, "q"], "kind": "p", "digits": 3})  # fmt: skip
    return found
