"""The answer, token by token: which heads look at the region, and which move the token."""

from typing import Any

import numpy as np

from headpatch.core.output.folder import Results
from headpatch.core.output.part import reading
from headpatch.present.canvas import signed
from headpatch.present.charts import heat, slots
from headpatch.present.section import Figure, Section, words
from headpatch.questions.trace.charts import lead_effects
from headpatch.stats.rankings import descending

HEADS = 2
"""Heads of each token in the map: those that move it most."""
MOST = 24
"""Heads in the map at most."""
LONGEST = 20
"""Letters of a token in the map; the table has it whole."""
_NEEDED = {"logit_with": 1, "logit_without": 1, "diff": 3}


def section(results: Results) -> Section | None:
    """Make the trace; None unless `trace` ran."""
    saved, part = results.tensors("trace.pt", _NEEDED), results.first("trace.pt")
    if saved is None or part is None:
        return None
    with reading(part.folder / "trace.pt"):
        way, effect = next(iter(lead_effects(saved).items()))
        diff = np.asarray(saved["diff"], np.float64)
        tokens = [str(one) for one in saved["tokens"]]
        if not len(tokens) == len(effect) == len(diff) or effect.ndim != 3:
            raise ValueError(f"it holds {len(tokens)} tokens and effects {effect.shape}")
        rows = [_row(saved, effect, diff, index) for index in range(len(tokens))]
        forced = list(dict.fromkeys(str(one) for one in saved["forced"]))
        kind, _, direction = way.rpartition("_")
    figure = _figure(tokens, effect, f"{kind}, {direction}")
    values = {"rows": rows, "forced": forced, "kind": kind, "direction": direction,
              "pairs": len(saved.get("pair_names", ()))}  # fmt: skip
    return Section("trace", "The answer, token by token", values, {"trace": figure})


def _head(flat: int, heads: int) -> str:
    return "{}.{}".format(*divmod(int(flat), heads))


def _row(saved: dict[str, Any], effect: np.ndarray, diff: np.ndarray, index: int) -> dict[str, Any]:
    heads = effect.shape[2]
    moves = int(descending(np.abs(effect[index]))[0])
    looks = int(descending(diff[index])[0])
    look = float(diff[index].flat[looks])
    return {
        "token": str(saved["tokens"][index]),
        "rival": str(saved["rivals"][index]),
        "with": signed(float(saved["logit_with"][index]), 2),
        "without": signed(float(saved["logit_without"][index]), 2),
        "looks": _head(looks, heads),
        "look": signed(look, 3) if np.isfinite(look) else "–",
        "moves": _head(moves, heads),
        "move": signed(float(effect[index].flat[moves]), 3),
    }


def _figure(tokens: list[str], effect: np.ndarray, way: str) -> Figure:
    flat = effect.reshape(len(tokens), -1)
    size = np.nan_to_num(np.abs(flat))
    first = [int(one) for row in size for one in descending(row)[:HEADS]]
    chosen = sorted(dict.fromkeys(first), key=lambda one: -size[:, one].max())[:MOST]
    chosen.sort()
    names = [_head(one, effect.shape[2]) for one in chosen]
    values = flat[:, chosen].T
    shown = [token if len(token) <= LONGEST else f"{token[:LONGEST]}…" for token in tokens]
    texts = [
        [
            words(f"head {name}, {token}: {signed(float(value), 3)}")
            for token, value in zip(shown, row, strict=True)
        ]
        for name, row in zip(names, values, strict=True)
    ]
    return Figure(
        [heat(values, texts)],
        {
            "xaxis": {**slots(shown), "tickangle": -45},
            "yaxis": {**slots(names), "autorange": "reversed", "title": {"text": "head"}},
        },
        160 + 20 * len(names),
        f"Map: effect on each token, {way}, for the {len(names)} heads that move tokens "
        "most; the table lists the largest.",
        title=f"Effect on each token ({way}), logits",
    )
