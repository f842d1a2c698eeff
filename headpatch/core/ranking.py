"""Which heads look at the region more when the object is there: the seed's analysis, complete.

Everything here is correlational. Attention is read at the answer position (language model), and
for the class token and the mean patch query (vision tower).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from headpatch.core.session import Session
from headpatch.engine.answers import generate
from headpatch.engine.patching import WITH, WITHOUT
from headpatch.heads import Head
from headpatch.stats import divergence
from headpatch.stats.attention_mass import (
    QUADRANTS,
    distribution,
    mass,
    normalized_mass,
    quadrant_masks,
)

if TYPE_CHECKING:
    import pandas

Saved: TypeAlias = dict[str, Any]
"""Plain tensors, numbers and texts, as a ``.pt`` file holds them."""

MASSES = ("diff", "with", "without", "diff_raw", "with_raw", "without_raw")
"""Figures of a head: share of the image attention that the region gets, and (raw) of all of it."""
_KEPT_PIXELS = 672  # longest side of the pictures kept beside the results


@dataclass(frozen=True, eq=False)
class Ranking:
    """What `rank` found.

    Attributes
    ----------
    columns
        All language-model heads, the largest attention difference first: the columns of
        ``heads.csv``, by name.
    per_head, spatial, with_run, without_run
        What the four ``.pt`` files hold; ``attention_data/README.md`` gives every key.
    answers
        What the model says of each picture, in full.
    """

    columns: dict[str, list[int | float]]
    per_head: Saved
    spatial: Saved
    with_run: Saved
    without_run: Saved
    answers: tuple[str, str]

    @cached_property
    def heads(self) -> "pandas.DataFrame":
        """Give `columns` as a table (imports pandas, which `headpatch rank` does without)."""
        import pandas

        return pandas.DataFrame(self.columns)

    def top(self, count: int) -> list[dict[str, int | float]]:
        """Return the first rows of the table."""
        names = list(self.columns)
        rows = zip(*(self.columns[name][:count] for name in names), strict=True)
        return [dict(zip(names, row, strict=True)) for row in rows]


def rank(session: Session) -> Ranking:
    """Rank every head by attention difference and describe where attention falls.

    Raises
    ------
    InputError
        If the region holds no patch's centre, or all of them.
    """
    mask = session.compared_tokens
    top = min(session.study.rank.top, session.vlm.lm.grid.layers * session.vlm.lm.grid.heads)
    rows = _image_rows(session)
    per_head = _per_head(rows, mask, top)
    answers = generate(session.vlm, session.prompt)
    return Ranking(
        columns=columns_of({name: per_head[name] for name in MASSES}),
        per_head=_tensors(per_head),
        spatial=_tensors(_spatial(session, rows, mask)),
        with_run=_run(session, WITH, answers[WITH]),
        without_run=_run(session, WITHOUT, answers[WITHOUT]),
        answers=(answers[WITH], answers[WITHOUT]),
    )


def order(session: Session) -> tuple[Head, ...]:
    """Return the heads, the largest attention difference first, and nothing else."""
    heads = list(session.vlm.lm.grid)
    return tuple(heads[index] for index in _descending(differences(session)))


def differences(session: Session) -> Float[np.ndarray, "layers heads"]:
    """Return how much more of its image attention each head gives the region with the object."""
    shares = normalized_mass(_image_rows(session), session.compared_tokens)
    return np.asarray(shares[WITH] - shares[WITHOUT])


def masses(session: Session) -> dict[str, Float[np.ndarray, "layers heads"]]:
    """Return each head's attention mass on the region in both runs: the figures of `MASSES`."""
    return _masses(_image_rows(session), session.compared_tokens)


def ranks(diff: Float[np.ndarray, "layers heads"]) -> Int[np.ndarray, "layers heads"]:
    """Return each head's rank: 1 is the largest difference; ties keep layer-head order."""
    found = np.empty(diff.size, dtype=np.int64)
    found[_descending(diff)] = np.arange(1, diff.size + 1)
    return found.reshape(diff.shape)


def _image_rows(session: Session) -> Float[np.ndarray, "runs layers heads tokens"]:
    rows = session.base.trace.lm_rows
    assert rows is not None
    return rows.cpu()[..., session.prompt.image_positions].numpy().astype(np.float64)


def _descending(values: Float[np.ndarray, "layers heads"]) -> list[int]:
    """Flat indices, the largest first; ties keep layer-head order."""
    return [int(index) for index in np.argsort(-values.ravel(), kind="stable")]


def _per_head(
    rows: Float[np.ndarray, "runs layers heads tokens"], mask: Bool[np.ndarray, " tokens"], top: int
) -> Saved:
    found = _masses(rows, mask)
    by_diff = _descending(found["diff"])
    layers, heads = found["diff"].shape
    return {
        **found,
        "rank": ranks(found["diff"]),
        "layer_counts": np.bincount(np.array(by_diff[:top]) // heads, minlength=layers),
        "top": top,
    }


def _masses(
    rows: Float[np.ndarray, "runs layers heads tokens"], mask: Bool[np.ndarray, " tokens"]
) -> dict[str, Float[np.ndarray, "layers heads"]]:
    normalized, raw = normalized_mass(rows, mask), mass(rows, mask)
    return {
        "diff": normalized[WITH] - normalized[WITHOUT],
        "with": normalized[WITH],
        "without": normalized[WITHOUT],
        "diff_raw": raw[WITH] - raw[WITHOUT],
        "with_raw": raw[WITH],
        "without_raw": raw[WITHOUT],
    }


def columns_of(
    figures: Mapping[str, Float[np.ndarray, "layers heads"]],
) -> dict[str, list[int | float]]:
    """List every head, the largest ``diff`` first: rank, layer, head and its figures."""
    rank = ranks(figures["diff"])
    by_rank = rank.ravel().argsort()
    layer, head = np.divmod(by_rank, rank.shape[1])
    columns = {"rank": rank.ravel()[by_rank], "layer": layer, "head": head}
    columns |= {name: values.ravel()[by_rank] for name, values in figures.items()}
    return {name: values.tolist() for name, values in columns.items()}


def _spatial(
    session: Session,
    rows: Float[np.ndarray, "runs layers heads tokens"],
    mask: Bool[np.ndarray, " tokens"],
) -> Saved:
    boxes = session.prompt.patches.boxes
    per_head = distribution(rows)
    by_layer = distribution(per_head.mean(2))  # every head of a layer weighs the same
    overall = distribution(per_head.mean((1, 2)))
    quadrants = np.stack([mass(per_head, quadrant) for quadrant in quadrant_masks(boxes)], -1)
    found: Saved = {
        "quadrant_names": list(QUADRANTS),
        "quadrants_by_layer_with": quadrants[WITH].mean(1),
        "quadrants_by_layer_without": quadrants[WITHOUT].mean(1),
        "divergence_overall": {name: float(value) for name, value in _divergences(overall).items()},
        "divergence_lm": _divergences(by_layer),
    }
    _add_difference(found, "quadrants", quadrants.mean((1, 2)))
    if session.vlm.vision is not None:
        trace = session.base.trace
        found["feature_layer"] = session.vlm.feature_layer
        for query, kept in (("cls", trace.vision_class_rows), ("patch", trace.vision_patch_rows)):
            if kept is not None:
                patches = _patch_keys(session, kept)
                shares = distribution(patches).mean(2)
                _add_difference(found, f"vision_{query}", mass(shares, mask))
                _add_difference(found, f"vision_{query}", mass(patches, mask).mean(2), "_raw")
                found[f"divergence_vision_{query}"] = _divergences(distribution(shares))
    return found


def _add_difference(
    found: Saved, name: str, runs: Float[np.ndarray, "runs *rest"], suffix: str = ""
) -> None:
    found[f"{name}_with{suffix}"], found[f"{name}_without{suffix}"] = runs[WITH], runs[WITHOUT]
    found[f"{name}_diff{suffix}"] = runs[WITH] - runs[WITHOUT]


def _divergences(runs: Float[np.ndarray, "runs *rest tokens"]) -> Saved:
    """Divergences of two runs' distributions; NaN where a run has no attention to the image."""
    p, q = runs[WITH], runs[WITHOUT]
    there = (p.sum(-1) > 0) & (q.sum(-1) > 0)
    found: Saved = {}
    for name in ("kl", "js", "js_distance"):
        measured = np.full(there.shape, np.nan)
        measured[there] = getattr(divergence, name)(p[there], q[there])
        found[name] = measured
    return found


def _patch_keys(session: Session, rows: Tensor) -> Float[np.ndarray, "runs layers heads patches"]:
    """Attention to the patches: a class token's key and padding's stand for no place."""
    return rows[..., session.prompt.placed_in(rows.shape[-1])].numpy().astype(np.float64)


def _run(session: Session, run: int, answer: str) -> Saved:
    prompt, trace = session.prompt, session.base.trace
    image = session.pair.with_image if run == WITH else session.pair.without_image
    logits = trace.logits[run]
    yes, no = float(logits[prompt.answers.yes]), float(logits[prompt.answers.no])
    small = image.copy()
    small.thumbnail((_KEPT_PIXELS, _KEPT_PIXELS))
    ids = prompt.input_ids.cpu()
    assert trace.lm_rows is not None
    found: Saved = {
        "lm_rows": trace.lm_rows[run].cpu().clone(),
        "image_positions": prompt.image_positions,
        "boxes": torch.from_numpy(prompt.patches.boxes).float(),
        "grid": torch.tensor(prompt.patches.grid),
        "input_ids": ids,
        "tokens": session.vlm.processor.tokenizer.convert_ids_to_tokens(ids.tolist()),
        "ld": yes - no,
        "logit_yes": yes,
        "logit_no": no,
        "answer": answer,
        "question": session.pair.question,
        "region_name": session.pair.region.name,
        "region_box": torch.tensor(session.pair.region.box),
        "image": torch.from_numpy(np.array(small)),
        "valid": session.valid,
    }
    for name, kept in (
        ("vision_cls_rows", trace.vision_class_rows),
        ("vision_patch_rows", trace.vision_patch_rows),
    ):
        if kept is not None:
            found[name] = torch.from_numpy(_patch_keys(session, kept)[run]).float()
    return found


def _tensors(found: Saved) -> Saved:
    """Turn arrays into tensors, float64 into float32."""
    plain: Saved = {}
    for key, value in found.items():
        if isinstance(value, dict):
            plain[key] = _tensors(value)
        elif isinstance(value, np.ndarray):
            tensor = torch.from_numpy(np.ascontiguousarray(value))
            plain[key] = tensor.float() if tensor.is_floating_point() else tensor
        else:
            plain[key] = value
    return plain
