"""What people see of a rollout: where the maps fall, and whether their first patches matter."""

from collections.abc import Iterator, Mapping, Sequence
from math import isnan
from typing import TYPE_CHECKING, Any, Final

from headpatch.core.question import Context, Files, table_of
from headpatch.present.canvas import signed
from headpatch.present.column import UNDEFINED, Row
from headpatch.present.parts import Part, Words, grid
from headpatch.questions.rollout.charts import (
    MAPS,
    area_means_chart,
    curves_chart,
    maps_chart,
    regions,
    regions_chart,
)
from headpatch.questions.rollout.columns import AREA_MEANS, AREAS, MEANS, PERTURBATION, REGIONS
from headpatch.stats.deletion_curves import areas

if TYPE_CHECKING:
    import pandas

_WAYS: Final = {"delete": "deleted", "insert": "shown"}
_STANDS: Final = {"other": "the other picture, at that place", "mean": "the picture's mean colour"}
_ORIGIN: Final = (
    "Where the token comes from by two methods, each followed back to the image tokens, then on to "
    "the patches. A map is a claim; patches are replaced to test it. Rollout gives weight to "
    "tokens that draw attention without content."
)
_SHARES: Final = (
    "region: its share of what the map gives to patches. not on patches: what ends elsewhere and "
    "is not drawn: at the image tokens, on text; at the patches, of what the image tokens hand on, "
    "on the vision tower's class token."
)
_CURVES: Final = (
    "deleted: the share of LD_with - LD_without by which LD moves when the first k patches are "
    "deleted; shown: the share that is regained when only they are shown. area: under that curve "
    "over log2(k + 1), scaled to 0 to 1; higher means that the first patches matter more."
)


def view(files: Files, context: Context) -> Iterator[Part]:
    """Show the maps, their shares on the region, and the areas under the curves of the check."""
    if MEANS.file in files:
        yield from _over_pairs(files, context)
        return
    saved = files["rollout.pt"]
    yield Words(title(saved), strong=True)
    yield Words(f"{title(saved)}. {_ORIGIN}", "page")
    yield maps_chart(saved)
    yield _regions(regions(saved["maps"], saved["elsewhere"], saved["in_region"]), context)
    yield Words(_SHARES)
    if PERTURBATION.file not in files:
        unchecked = str(saved.get("unchecked") or f"{PERTURBATION.file} is missing")
        yield Words(summary([], unchecked, context))
        return
    curves = table_of(files[PERTURBATION.file])
    rows: list[Any] = areas(curves).to_dict("records")
    yield from _check(rows, context.options.get("fill", saved["fill"]))
    yield Words(summary(rows, "", context))
    yield curves_chart(curves, token=repr(saved["token"]), fill=saved["fill"])


def title(saved: Mapping[str, Any]) -> str:
    """Say which token it is, and LD of both runs."""
    token, rival = saved["token"], saved["rival"]
    what = f"Token {saved['index']} of {saved['answer']!r}: {token!r}"
    if not rival:
        return f"{what}, which both runs would say"
    return (
        f"{what}; LD = logit({token}) - logit({rival}): with {saved['base_with']:+.3f}, "
        f"without {saved['base_without']:+.3f}"
    )


def _regions(rows: Any, context: Context) -> Part:
    cells: dict[str, Any] = {"map": _map, "run": "run", "region": "region"}
    if context.pairs is not None:
        cells[f"{context.level:.0%} interval"] = lambda row: _interval(row, "region", ".1%")
    cells |= {"if even": "even", "not on patches": "elsewhere"}
    return grid("Where the maps fall", rows, cells, REGIONS)


def _map(row: Row) -> str:
    return MAPS[row["map"] if "map" in row else f"{row['method']}_{row['stage']}"][1]


_AREA_CELLS: Final[Mapping[str, Any]] = {
    "run": "run",
    "patches": lambda row: _WAYS[row["way"]],
    "in the order of": _map,
    "area": "area",
}


def _interval(row: Row, name: str, form: str) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return UNDEFINED if isnan(low) else f"{low:{form}} to {high:{form}}"


def _check(rows: Sequence[Row], fill: str) -> Iterator[Part]:
    size = rows[0]["region_size"]
    cells: dict[str, Any] = {
        **_AREA_CELLS,
        "random orders": lambda row: f"{row['random_mean']:+.3f}±{row['random_sd']:.3f}",
        "below": lambda row: f"{row['random_below']}/{row['random_n']}",
        f"first {size}": lambda row: f"{row['at_region_size']:+.2f}",
        "random": lambda row: f"{row['random_at_region_size']:+.2f}",
        "region": lambda row: f"{row['region']:+.2f}",
    }
    yield grid("Do the maps' patches matter?", rows, cells, AREAS)
    yield Words(
        f"{_CURVES} below: how many random orders have a smaller area. first {size}, random, "
        "region: the share for as many patches as the region has: the map's first, random ones "
        f"(mean), and the region's own. In a deleted patch stands {_STANDS.get(fill, fill)}."
    )


def summary(rows: Sequence[Row], unchecked: str, context: Context) -> str:
    """Say whether the with-run's maps beat random patches, and no more than one pair can show.

    Rows are those of `headpatch.stats.deletion_curves.areas`; `unchecked` says why there are none.
    """
    if unchecked:
        return f"The maps are not checked: {unchecked}."
    beside = []
    for row in _deleted(rows):
        below, count = row["random_below"], row["random_n"]
        how = f"more than {below}" if below else "no more than any"
        how = "more than any" if below == count else how
        beside.append(f"{_map(row)}: {signed(row['area'], 3)}, {how} of {count} random orders")
    mean, sd = rows[0]["random_mean"], rows[0]["random_sd"]
    return (
        "Area of LD moved when the with-run's patches are deleted in the order of "
        f"{'; '.join(beside)} ({signed(mean, 3)} ± {sd:.3f}). {context.caveat}"
    )


def _deleted(rows: Sequence[Row]) -> Iterator[Row]:
    """Yield what deleting patches does to the with-run."""
    return (row for row in rows if row["run"] == "with" and row["way"] == "delete")


def _over_pairs(files: Files, context: Context) -> Iterator[Part]:
    means = table_of(files[MEANS.file])
    yield Words(f"Where a token of the answer comes from, means over {context.pairs:,} pairs",
                strong=True)  # fmt: skip
    yield Words(_ORIGIN, "page")
    yield _regions(means, context)
    yield Words(_SHARES)
    yield regions_chart(means, context.level)
    checked = None
    if AREA_MEANS.file in files:
        checked = table_of(files[AREA_MEANS.file])
        cells: dict[str, Any] = {
            **_AREA_CELLS,
            "random orders": "random_mean",
            "difference": "difference",
            f"{context.level:.0%} interval": lambda row: _interval(row, "difference", "+.3f"),
            "pairs": "pairs",
        }
        yield grid("Do the maps' patches matter?", checked, cells, AREA_MEANS)
        fill = context.options.get("fill", "other")
        yield Words(
            f"{_CURVES} random orders: mean of theirs. difference: area minus that, pair by pair. "
            f"In a deleted patch stands {_STANDS[fill]}."
        )
        yield area_means_chart(checked, context.level)
    yield Words(pairs_summary(checked, context))


def pairs_summary(checked: "pandas.DataFrame | None", context: Context) -> str:
    """Say how far the with-run's maps lie above random orders, over the pairs that are checked."""
    if checked is None:
        return (
            "The maps are not checked: in every pair both runs would say the same token, or the "
            "model does not take a picture patch by patch."
        )
    beside = []
    rows: list[Any] = checked.to_dict("records")
    for row in _deleted(rows):
        ends = _interval(row, "difference", "+.3f")
        interval = "" if ends == UNDEFINED else f" ({ends})"
        beside.append(f"{_map(row)}: {signed(row['difference'], 3)}{interval}")
    pairs = int(checked["pairs"].max())
    left_out = (context.pairs or 0) - pairs
    not_checked = f" {left_out:,} pairs are not checked." if left_out else ""
    return (
        "Area of LD moved when the with-run's patches are deleted in a map's order, minus that of "
        f"random orders: {'; '.join(beside)}. Means over {pairs:,} pairs.{not_checked} "
        f"{context.caveat}"
    ).strip()
