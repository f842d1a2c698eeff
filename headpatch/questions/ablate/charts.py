"""What interventions on named heads do to the answer, beside their controls, as a chart."""

from typing import TYPE_CHECKING, Final

import numpy as np

from headpatch.present.canvas import GREY, check_columns, signed
from headpatch.present.chart import Chart
from headpatch.present.effects_view import changed_at, effect_series, effects_chart, row_names
from headpatch.present.panel import Guide, Look, Series

if TYPE_CHECKING:
    import pandas

FILE: Final = "head_effects.png"
MOST_HEADS: Final = 40  # as many fit a page: those with the largest effects are shown
_ANSWERS: Final = tuple(  # what a filled and a hollow marker mean, for the legend
    Series(name, np.zeros(0), np.zeros(0), look=Look(GREY, hollow=hollow), mark="points")
    for name, hollow in (("answer changed", False), ("answer kept", True))
)


def named_effects_chart(effects: "pandas.DataFrame") -> Chart:
    """Show the normalized effect of every head and joint set, by kind and direction.

    Behind each effect lies the band of the same intervention on random heads of the same layers
    (mean, and one standard deviation either side) and, around 0, what patching heads with their own
    z does. A filled marker says that the first answer token changed.
    """
    needed = ("heads", "kind", "direction", "normalized", "role", "control_mean", "control_sd")
    check_columns(effects, (*needed, "answer_before", "answer_after"), "effects")
    table = effects.assign(row=row_names(effects))
    named = table[table["role"].isin(["head", "joint"])]
    if named.empty:
        raise ValueError("effects hold no row with the role 'head' or 'joint'")
    floor = float(table.loc[table["role"] == "noise floor", "normalized"].abs().max())
    own = Guide("x", -floor, floor, f"patched with own z (±{floor:.1g})", hatch="xxxx")
    return effects_chart(
        "effects",
        FILE,
        f"Effect of the intervention on the Yes/No answer{changed_at(named)}",
        named,
        _series,
        MOST_HEADS,
        guides=[own] if np.isfinite(floor) else [],
        room=0.3,  # for the printed values
    )


def _series(look: Look, rows: "pandas.DataFrame") -> list[Series]:
    mean, sd = (rows[name].to_numpy(np.float64) for name in ("control_mean", "control_sd"))
    half = np.nan_to_num(sd)
    kept = rows["answer_before"].astype(str) == rows["answer_after"].astype(str)
    texts = [_label(value) if np.isfinite(value) else "" for value in rows["normalized"]]
    chance = mean, mean - half, mean + half
    marks = {"hollow": kept.to_numpy(), "texts": texts}
    return [effect_series(rows, look, chance, "random heads, mean ± SD", **marks), *_ANSWERS]


def _label(value: float) -> str:
    """Two digits after the point, or the order of magnitude of what would read as 0.00."""
    if value and abs(value) < 0.005:
        return f"{value:+.0e}".replace("e-0", "e-").replace("-", "−")
    return signed(value, 2)
