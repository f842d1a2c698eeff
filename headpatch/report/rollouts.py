"""Where a token of the answer comes from: tables for a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from headpatch.present.canvas import signed
from headpatch.present.tables import plain_table
from headpatch.questions.rollout.charts import MAPS


def rollout_tables(
    regions: Sequence[Mapping[str, Any]], areas: Sequence[Mapping[str, Any]]
) -> RenderableType:
    """Show where the maps fall, and how they did against random orders of patches."""
    table = plain_table(
        "map", "run", "region", "if even", "not on patches", title="Where the maps fall"
    )
    for one in regions:
        words = MAPS[f"{one['method']}_{one['stage']}"][1]
        table.add_row(
            words,
            str(one["run"]),
            f"{one['region']:.1%}",
            f"{one['even']:.1%}",
            f"{one['elsewhere']:.1%}",
        )
    parts: list[RenderableType] = [
        table,
        Text(
            "region: its share of what the map gives to patches. not on patches: what ends "
            "elsewhere and is not drawn: at the image tokens, on text; at the patches, of what the "
            "image tokens hand on, on the vision tower's class token."
        ),
    ]
    if areas:
        parts += [_check_table(areas), Text(_check_note(areas[0]))]
    return Group(*parts)


def _check_table(areas: Sequence[Mapping[str, Any]]) -> RenderableType:
    table = plain_table(
        "run",
        "patches",
        "in the order of",
        "area",
        "random orders",
        "below",
        f"first {areas[0]['region_size']}",
        "random",
        "region",
        title="Do the maps' patches matter?",
    )
    for one in areas:
        table.add_row(
            str(one["run"]),
            "deleted" if one["way"] == "delete" else "shown",
            MAPS[one["map"]][1],
            f"{one['area']:+.3f}",
            f"{one['random_mean']:+.3f}±{one['random_sd']:.3f}",
            f"{one['random_below']}/{one['random_n']}",
            f"{one['at_region_size']:+.2f}",
            f"{one['random_at_region_size']:+.2f}",
            f"{one['region']:+.2f}",
        )
    return table


def _check_note(one: Mapping[str, Any]) -> str:
    return (
        "deleted: the share of LD_with - LD_without by which LD moves when the first k patches are "
        "deleted; shown: the share that is regained when only they are shown. area: under that "
        "curve over log2(k + 1), scaled to 0 to 1. below: how many random orders have a smaller "
        f"area. first {one['region_size']}, random, region: the share for as many patches as the "
        "region has: the map's first, random ones (mean), and the region's own."
    )


def rollout_summary(areas: Sequence[Mapping[str, Any]], unchecked: str, valid: bool) -> str:
    """Say whether the with-run's maps beat random patches, and no more than one pair can show."""
    if unchecked:
        return f"The maps are not checked: {unchecked}."
    caveat = "One pair shows one case, not a rule."
    if not valid:
        caveat = "The study is INVALID (its answers are not Yes and No): these figures say nothing."
    said = []
    for one in areas:
        if one["run"] == "with" and one["way"] == "delete":
            below, count = one["random_below"], one["random_n"]
            how = f"more than {below}" if below else "no more than any"
            how = "more than any" if below == count else how
            said.append(
                f"{MAPS[one['map']][1]}: {signed(one['area'], 3)}, {how} of {count} random orders"
            )
    mean, sd = areas[0]["random_mean"], areas[0]["random_sd"]
    return (
        "Area of LD moved when the with-run's patches are deleted in the order of "
        f"{'; '.join(said)} ({signed(mean, 3)} ± {sd:.3f}). {caveat}"
    )
