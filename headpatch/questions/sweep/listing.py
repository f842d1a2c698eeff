"""The heads, sets and layers of a sweep with the largest effects."""

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from headpatch.kinds import KINDS, REWEIGHTED, first_of


def named_rows(effects: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the heads, sets and layers, without those of the noise floor."""
    return effects[effects["role"] != "noise floor"].reset_index(drop=True)


def top(
    named: pd.DataFrame, count: int, floor: float, layers: bool = False
) -> list[dict[str, Any]]:
    """Return each direction's heads or sets (or layers) with the largest effects of one pair."""
    rows = []
    for place, row in _largest(named, count, layers):
        heads, direction = row["heads"], row["direction"]
        own = named[(named["heads"] == heads) & (named["direction"] == direction)]
        rank, shares = row["attention_rank"], own.set_index("kind")["normalized"].items()
        rows.append(
            {
                "direction": direction,
                "place": place,
                "heads": _layer(heads) if layers else heads,
                "kind": row["kind"],
                "effect": float(row["effect"]),
                "normalized": {str(kind): float(value) for kind, value in shares},
                "below_floor": bool(abs(row["effect"]) <= floor),
                "answer_before": row["answer_before"],
                "answer_after": row["answer_after"],
                "attention_rank": None if pd.isna(rank) else int(rank),
            }
            | _alpha(row)
            | {name: float(row[name]) for name in ("approx", "approx_ig") if name in row}
        )
    return rows


def top_means(means: pd.DataFrame, count: int, layers: bool = False) -> list[dict[str, Any]]:
    """Return likewise the rows of mean effects over pairs, each with its place."""
    return [
        {"place": place} | row | ({"heads": _layer(row["heads"])} if layers else {})
        for place, row in _largest(means, count, layers)
    ]


def extremes(named: pd.DataFrame, floor: float) -> list[dict[str, Any]]:
    """Return the head or set with the largest (mean) effect of each kind and direction."""
    chosen = named[named["role"] != "layer"]
    sizes = chosen["effect"].abs().dropna()
    first = sizes.groupby([chosen["kind"], chosen["direction"]], sort=False).idxmax()
    return [
        {name: row[name] for name in ("kind", "direction", "heads")}
        | {name: float(row[name]) for name in ("effect", "normalized")}
        | {"below_floor": bool(abs(row["effect"]) <= floor)}
        | _alpha(row)
        for row in chosen.loc[first].to_dict("records")
    ]


def unlisted(
    largest: list[dict[str, Any]], listed: list[dict[str, Any]]
) -> list[Mapping[str, Any]]:
    """Return those of `extremes` that are in no table of the tops.

    Of one pair a table has the share of every kind, of many that of the kind that sorts.
    """
    known = {
        (kind, row["direction"], row["heads"])
        for row in listed
        for kind in (row["normalized"] if isinstance(row["normalized"], dict) else [row["kind"]])
    }
    return [row for row in largest if (row["kind"], row["direction"], row["heads"]) not in known]


def _layer(heads: str) -> str:
    """Name all heads of a layer as ``headpatch ablate --heads`` does: ``layer:3``, ``layer:v3``."""
    return f"layer:{heads.partition('.')[0]}"


def _alpha(row: Mapping[Any, Any]) -> dict[str, Any]:
    more = {"toward": str(row["toward"])} if row["kind"] in REWEIGHTED else {}
    return {"alpha": float(row["alpha"]), **more} if KINDS[row["kind"]].alpha else {}


def _largest(named: pd.DataFrame, count: int, layers: bool) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield each direction's rows with the largest effects, each with its place from 1."""
    first = first_of(set(named["kind"]))
    chosen = named[((named["role"] == "layer") == layers) & (named["kind"] == first)]
    for _, rows in chosen.groupby("direction", sort=False):
        size = rows["effect"].abs().sort_values(ascending=False, kind="stable")
        listed = rows.loc[size.index[:count]].to_dict("records")
        for place, row in enumerate(listed, start=1):
            yield place, {str(name): value for name, value in row.items()}
