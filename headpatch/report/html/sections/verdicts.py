"""The verdict: how many heads are of each class, and the heads that are shown to act."""

from typing import Any

from headpatch.core.output.folder import Results
from headpatch.present.canvas import signed
from headpatch.present.section import Section
from headpatch.report.html.heads import CAUSAL, VERDICTS, heads_of, judged_on
from headpatch.report.verdict_tables import with_whom
from headpatch.stats.rankings import descending, effect_size

MEANING = {
    "necessary+sufficient": "exchanging its z moves the answer beyond δ, both ways",
    "necessary": "with the other run's z instead of its own, the answer moves beyond δ",
    "sufficient": "its z alone, put into the other run, moves the answer beyond δ",
    "redundant": "not necessary alone, but together with a partner",
    "inhibitory": "it works against the answer, beyond δ",
    "watches": "it attends more when the object is there; its effect is shown to lie within ±δ",
    "inert": "its effect is shown to lie within ±δ",
    "undecided": "the interval is too wide to say either",
}
_LAYER_P = ("necessity_layer_p", "sufficiency_layer_p")
MOST = 12
"""Heads listed here; the table of all heads has the rest."""
_NEEDED = {
    "layer": "number",
    "head": "number",
    "verdict": "text",
    "attention_diff": "number",
    "necessity": "number",
    "necessity_low": "number",
    "necessity_high": "number",
    "sufficiency": "number",
    "sufficiency_low": "number",
    "sufficiency_high": "number",
}


def section(results: Results) -> Section | None:
    """Make the verdict; None without one."""
    table, heads = results.table("verdicts.csv", _NEEDED), heads_of(results)
    part = results.first("verdicts.csv")
    if table is None or heads is None or part is None:
        return None
    counts = table["verdict"].value_counts()
    order = [*VERDICTS, *(name for name in counts.index if name not in VERDICTS)]
    total = len(table)
    classes = [
        {"name": name, "count": int(counts[name]), "meaning": MEANING.get(name, ""),
         "share": 100 * counts[name] / total}
        for name in order if name in counts
    ]  # fmt: skip
    acting = table[table["verdict"].isin(CAUSAL)]
    size = effect_size(acting["necessity"].to_numpy(float), acting["sufficiency"].to_numpy(float))
    acting = acting.iloc[descending(size)]
    layer_p = all(name in acting and acting[name].dtype.kind == "f" for name in _LAYER_P)
    delta = part.study.get("verdict", {}).get("delta")
    return Section(
        "verdict",
        "The verdict",
        {
            "classes": classes,
            "total": total,
            "acting": [_row(row, layer_p) for row in acting.head(MOST).to_dict("records")],
            "more": max(len(acting) - MOST, 0),
            "pairs": judged_on(results),
            "delta": delta,
            "layer_p": layer_p,
            "partners": "partners" in acting and acting["partners"].notna().any(),
        },
    )


def _row(row: dict[Any, Any], layer_p: bool) -> dict[str, Any]:
    partners = row.get("partners")
    return {
        "head": f"{int(row['layer'])}.{int(row['head'])}",
        "verdict": row["verdict"],
        "attention": signed(row["attention_diff"], 3) if row["attention_diff"] == row[
            "attention_diff"] else "–",
        "necessity": _interval(row, "necessity"),
        "sufficiency": _interval(row, "sufficiency"),
        "layer_p": " / ".join(f"{row[name]:.2g}" for name in _LAYER_P * layer_p),
        "partners": with_whom(partners) if isinstance(partners, str) else "",
    }  # fmt: skip


def _interval(row: dict[Any, Any], name: str) -> str:
    low, high = (signed(row[f"{name}_{end}"], 3) for end in ("low", "high"))
    return f"{signed(row[name], 3)} [{low}, {high}]"
