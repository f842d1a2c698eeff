r"""Self-repair: what later parts make up for when heads are changed.

When heads S are changed, LD moves by the *total* effect T. Had everything after them stayed as it
was, it would have moved by their *direct* effect alone: what they write, seen through the final
norm and the unembedding. In normalized units (a share of LD_with - LD_without, positive towards
the other run),

.. math:: repair(S) = D(S) - T(S).

Above 0, later parts make up for the loss (McGrath, Rahtz, Kramár, Mikulik & Legg, *The Hydra
Effect*, 2023, arXiv:2307.15771); below 0 they pass it on and add to it, as parts do that read what
these heads write. D is given twice: with the scale of the final norm as the untouched run has it
(frozen), and with the norm computed anew (renormed). The difference is what the norm alone repairs
(Rushing & Nanda, *Explorations of Self-Repair in Language Models*, 2024, arXiv:2402.15390).

T is then taken apart, exactly: with the frozen scale, T = D + Σ the change in what each other head,
each MLP and each bias adds directly + what the changed scale does to the sum. The parts that take
over are those whose direct attribution moves against D. All of it is read at the answer position;
LD is meant before a soft cap of the logits.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from headpatch.core.aggregate import intervals
from headpatch.core.session import Session
from headpatch.core.study.study import Study
from headpatch.engine.direct import direct_effect, take_apart
from headpatch.engine.interventions import Intervention
from headpatch.engine.patching import PLAIN_BATCH, WITH, WITHOUT, OnProgress, ZMeans, z_edits
from headpatch.heads import Head, HeadSet
from headpatch.present.head_columns import with_alpha, with_head_columns
from headpatch.stats.scenes import Scenes, by_scene

FIGURES = ("direct", "renormed", "total", "repair", "other_heads", "mlps", "biases", "norm")
"""Of a set of heads: normalized effects; the last four make up total - direct."""
_WITH_INTERVALS = ("direct", "total", "repair")
_LISTED = 10  # parts named for each intervention


@dataclass(frozen=True, eq=False)
class Repairs:
    """What changing each set did to every part, in one pair of pictures.

    All is normalized like an effect: positive where it moves LD towards the other run. `heads` and
    `mlps` hold the change in each one's direct attribution, the changed heads included.
    """

    asked: tuple[Intervention, ...]
    figures: dict[str, Float[np.ndarray, " asked"]]  # by name (`FIGURES`)
    heads: Float[np.ndarray, "asked layers heads"]
    mlps: Float[np.ndarray, "asked layers"]


def measure(
    session: Session,
    asked: Sequence[Intervention],
    means: ZMeans | None = None,
    on_progress: OnProgress | None = None,
) -> Repairs:
    """Change sets of heads by plain passes, and take each pass apart.

    A RunError says that LD cannot be attributed to this model's parts.
    """
    gap = session.base.ld_with - session.base.ld_without
    rows: dict[Intervention, dict[str, Any]] = {}
    for one, effects in _passes(session, asked, means):
        towards = (-1 if one.run == WITH else 1) / gap if gap else np.nan
        rows[one] = {name: value * towards for name, value in effects.items()}
        if on_progress:
            on_progress(len(rows), len(asked))
    figures = {name: np.array([rows[one][name] for one in asked]) for name in FIGURES}
    parts = (np.stack([rows[one][name] for one in asked]) for name in ("by_head", "by_mlp"))
    return Repairs(tuple(asked), figures, *parts)


def _passes(
    session: Session, asked: Sequence[Intervention], means: ZMeans | None
) -> Iterator[tuple[Intervention, dict[str, Any]]]:
    """Give each intervention's effects in logits."""
    vlm = session.vlm
    for run in (WITH, WITHOUT):
        base = session.base.seen_from(run)
        members = [one for one in asked if one.run == run]
        for start in range(0, len(members), PLAIN_BATCH - 1):
            chunk = members[start : start + PLAIN_BATCH - 1]
            edits = [
                edit
                for row, one in enumerate(chunk, start=1)
                for edit in z_edits(vlm, row, one, base, means)
            ]
            apart = take_apart(vlm, base.prompt.select(run).repeat(len(chunk) + 1), edits)
            parts, scale = apart.parts, apart.parts.scale[0]
            heads = scale * (parts.heads - parts.heads[:1])
            mlps = scale * (parts.mlps - parts.mlps[:1])
            biases = scale * (parts.biases - parts.biases[:1]).sum(1)
            total, norm = parts.ld - parts.ld[0], (parts.scale - scale) * parts.total
            for row, one in enumerate(chunk, start=1):
                direct = direct_effect(vlm, apart, row, one.heads.heads)
                by_head = heads[row].double()
                yield (
                    one,
                    {
                        "direct": direct.frozen,
                        "renormed": direct.renormed,
                        "total": float(total[row]),
                        "repair": direct.frozen - float(total[row]),
                        "other_heads": float(by_head.sum()) - direct.frozen,
                        "mlps": float(mlps[row].sum()),
                        "biases": float(biases[row]),
                        "norm": float(norm[row]),
                        "by_head": by_head.numpy(),
                        "by_mlp": mlps[row].double().numpy(),
                    },
                )


@dataclass(frozen=True, eq=False)
class SelfRepair:
    """What `judge` found, for each set × kind × direction.

    `table` has the columns of ``selfrepair.csv``; `parts`, those whose direct attribution changes
    most, the changed heads left out, has those of ``selfrepair_parts.csv``.
    """

    table: pd.DataFrame
    parts: pd.DataFrame


def judge(study: Study, repairs: Sequence[Repairs], scenes: Scenes) -> SelfRepair:
    """Average over the scenes of pairs of pictures, with intervals where there are several."""
    asked = repairs[0].asked
    way = {
        name: [str(getattr(change, name)) for change in asked]
        for name in ("heads", "kind", "direction", "positions")
    }
    columns: dict[str, Any] = dict(way)
    finite = np.array([np.isfinite(one.figures["total"]).all() for one in repairs])
    kept = np.flatnonzero(finite if finite.any() else ~finite)
    defined, scenes = [repairs[pair] for pair in kept.tolist()], scenes[kept]
    for name in FIGURES:
        values = np.stack([one.figures[name] for one in defined])
        columns[name] = by_scene(values, scenes).mean(0)
        if name in _WITH_INTERVALS:
            _, columns[f"{name}_low"], columns[f"{name}_high"] = intervals(study, values, scenes)
    columns["pairs"] = len(defined)
    heads, mlps = (
        by_scene(np.stack([getattr(one, part) for one in defined]), scenes).mean(0)
        for part in ("heads", "mlps")
    )
    parts = [
        {name: way[name][place] for name in ("heads", "kind", "direction")}
        | {"rank": rank, "part": part, "change": change}
        for place, changed in enumerate(asked)
        for rank, (part, change) in enumerate(
            _largest_changes(changed.heads, heads[place], mlps[place])[:_LISTED], 1
        )
    ]
    tables = (with_alpha(pd.DataFrame(rows), study.combine.alpha) for rows in (columns, parts))
    return SelfRepair(*map(with_head_columns, tables))


def _largest_changes(
    changed: HeadSet, heads: Float[np.ndarray, "layers heads"], mlps: Float[np.ndarray, " layers"]
) -> list[tuple[str, float]]:
    """Return the other parts by the size of their change: heads by name, MLPs as ``mlp 28``."""
    named = {
        str(Head(layer, head)): float(heads[layer, head])
        for layer, head in np.ndindex(*heads.shape)
        if Head(layer, head) not in changed.heads
    }
    named |= {f"mlp {layer}": float(change) for layer, change in enumerate(mlps)}
    return sorted(named.items(), key=lambda item: -abs(item[1]))
