"""How much of the answer the first k heads of a ranking carry."""

from headpatch.core.output.folder import Results
from headpatch.present.canvas import ORANGE
from headpatch.present.charts import SYMBOLS, along, band, counts_axis, lines
from headpatch.present.panel import Look
from headpatch.present.section import Figure, Section
from headpatch.questions.verdict.charts import RANKINGS

_WAYS = {
    "keep": "Keep only the first k heads",
    "remove": "Take away the first k heads",
}
_NEEDED = {
    "ranking": "text",
    "way": "text",
    **dict.fromkeys(
        ["k", "share", "share_low", "share_high", "area", "area_low", "area_high"], "number"
    ),
}


def section(results: Results) -> Section | None:
    """Make the curves; None without them."""
    table = results.table("faithfulness.csv", _NEEDED)
    if table is None or table.empty:
        return None
    figures, rows = {}, []
    for way, title in _WAYS.items():
        traces = []
        for ranking, curve in table[table["way"] == way].groupby("ranking", sort=False):
            look, name = RANKINGS.get(str(ranking), (Look(ORANGE, "x"), str(ranking)))
            color, symbol = look.color, SYMBOLS[look.marker]
            x = along(curve["k"])
            low, high = (curve[f"share_{end}"].to_numpy() for end in ("low", "high"))
            traces.append(band(x, low, high, color, hoverinfo="skip"))
            traces.append(lines(curve["share"].to_numpy(), name, color, symbol, x=x))
            first = curve.iloc[0]
            area = f"{first['area']:.3f} [{first['area_low']:.3f}, {first['area_high']:.3f}]"
            rows.append({"way": title, "ranking": name, "area": area})
        if traces:
            counts = sorted(set(table["k"].astype(int)))
            figures[f"faithfulness-{way}"] = Figure(
                traces,
                {
                    "xaxis": counts_axis("k heads", counts),
                    "yaxis": {
                        "title": {"text": "share of the LD difference left"},
                        "zeroline": True,
                    },
                },
                320,
                f"Lines: {title.lower()}; areas under the curves are in the table.",
                title=title,
            )
    return Section(
        "faithfulness", "How much a ranking's first heads carry", {"rows": rows}, figures
    )
