"""What the first heads of a ranking do as one set, against random sets of the same layers.

Single heads may do next to nothing and still carry the answer together: 48 heads of 1/48 each, say.
So the heads that rankings pick, and those with the largest effects alone, are changed together
on the pairs that did not choose them, in both directions, and so are random sets with as many
heads of each layer.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from headpatch.engine.interventions import Direction
from headpatch.questions.verdict.pair_record import DIRECTIONS, PerPair
from headpatch.stats.effects import rank_of
from headpatch.stats.intervals import interval_by
from headpatch.stats.scenes import by_scene
from headpatch.stats.verdict_labels import Rule

if TYPE_CHECKING:
    from headpatch.questions.verdict.judgement import Part


def joint_effects(
    parts: "Sequence[Part]",
    necessity: PerPair,
    sufficiency: PerPair,
    rule: Rule,
    scenes: Int[np.ndarray, " pairs"] | None = None,
) -> pd.DataFrame:
    """Judge the first heads of each ranking as one set: the rows of ``together.csv``.

    `necessity` and `sufficiency` are of every head alone on all pairs, whose scenes are `scenes`.
    p is that of a random set with as large an effect (`headpatch.stats.effects.rank_of`), by means
    over pairs; NaN where no random set could be drawn.
    """
    rows = []
    for ranking in parts[0].choice.rankings:
        chosen = [part for part in parts if ranking in part.choice.together]
        if not chosen:
            continue
        judges = np.concatenate([part.judges for part in chosen])
        units = None if scenes is None else scenes[judges]
        for way, alone in zip(DIRECTIONS, (necessity, sufficiency), strict=True):
            of_set, sums = zip(
                *(_of_part(part, ranking, way, alone) for part in chosen), strict=True
            )
            values = np.column_stack([np.concatenate(of_set), np.concatenate(sums)])
            found = interval_by(by_scene(values, units), rule, stream=7)
            controls = by_scene(random_effects(chosen, ranking, way), units).mean(0)
            draws = len(controls)
            row: dict[str, Any] = {
                "ranking": ranking,
                "direction": way,
                "heads": ";".join(str(part.choice.together[ranking]) for part in chosen),
                "k": max(len(part.choice.together[ranking]) for part in chosen),
            }
            for place, name in enumerate(("effect", "alone")):
                row |= {end: float(means[place]) for end, means in found.columns(name).items()}
            row |= {
                "random": controls.mean() if draws else np.nan,
                "random_low": controls.min(initial=np.inf) if draws else np.nan,
                "random_high": controls.max(initial=-np.inf) if draws else np.nan,
                "p": rank_of(row["effect"], controls) if draws else np.nan,
                "draws": draws,
                "pairs": len(judges),
            }
            rows.append(row)
    return pd.DataFrame(rows)


def random_effects(
    parts: "Sequence[Part]", ranking: str, way: Direction
) -> Float[np.ndarray, "judges draws"]:
    """Return what random sets do on every pair that judges, part by part: as many draws of each."""
    draws = min(len(part.choice.random[ranking]) for part in parts)
    columns = [
        [part.effects[way][one] for one in part.choice.random[ranking][:draws]] for part in parts
    ]
    return np.concatenate(
        [
            np.reshape(one, (draws, len(part.judges))).T
            for part, one in zip(parts, columns, strict=True)
        ]
    )


def _of_part(
    part: "Part", ranking: str, way: Direction, alone: PerPair
) -> tuple[Float[np.ndarray, " judges"], Float[np.ndarray, " judges"]]:
    """Return a set's effect on each pair, and the sum of what its heads do alone."""
    members = part.choice.together[ranking]
    layers, heads = [one.layer for one in members], [one.head for one in members]
    own = alone[part.judges][:, layers, heads]
    return part.effects[way][members], own.sum(1)
