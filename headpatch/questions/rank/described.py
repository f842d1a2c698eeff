"""Where attention falls in a pair's two runs: what the four ``.pt`` files of `rank` hold.

Attention is read at the answer position (language model), and for the class token and the mean
patch query (vision tower).
"""

from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from headpatch.core.ranking import descending, masses_of, ranks
from headpatch.core.session import Session
from headpatch.engine.patching import WITH, WITHOUT
from headpatch.stats import divergence
from headpatch.stats.attention_mass import (
    QUADRANTS,
    distribution,
    mass,
    quadrant_masks,
)

Saved: TypeAlias = dict[str, Any]
"""Plain tensors, numbers and texts, as a ``.pt`` file holds them."""
Rows: TypeAlias = Float[np.ndarray, "runs layers heads tokens"]
Mask: TypeAlias = Bool[np.ndarray, " tokens"]
_KEPT_PIXELS = 672  # longest side of the pictures kept beside the results


def head_figures(rows: Rows, mask: Mask, top: int) -> Saved:
    """Return every head's masses and rank, and the layers of the first `top` heads."""
    figures = masses_of(rows, mask)
    by_diff = descending(figures["diff"])
    layers, heads = figures["diff"].shape
    return {
        **figures,
        "rank": ranks(figures["diff"]),
        "layer_counts": np.bincount(np.array(by_diff[:top]) // heads, minlength=layers),
        "top": top,
    }


def where_attention_falls(session: Session, rows: Rows, mask: Mask) -> Saved:
    """Return quadrants, divergences of both runs, and the region's share in the vision tower."""
    boxes = session.prompt.patches.boxes
    per_head = distribution(rows)
    by_layer = distribution(per_head.mean(2))  # every head of a layer weighs the same
    overall = distribution(per_head.mean((1, 2)))
    quadrants = np.stack([mass(per_head, quadrant) for quadrant in quadrant_masks(boxes)], -1)
    return {
        "quadrant_names": list(QUADRANTS),
        "quadrants_by_layer_with": quadrants[WITH].mean(1),
        "quadrants_by_layer_without": quadrants[WITHOUT].mean(1),
        "divergence_overall": {name: float(value) for name, value in _divergences(overall).items()},
        "divergence_lm": _divergences(by_layer),
        **_difference("quadrants", quadrants.mean((1, 2))),
        **_vision(session, mask),
    }


def _vision(session: Session, mask: Mask) -> Saved:
    if session.vlm.vision is None:
        return {}
    trace = session.base.trace
    saved: Saved = {"feature_layer": session.vlm.feature_layer}
    for query, kept in (("cls", trace.vision_class_rows), ("patch", trace.vision_patch_rows)):
        if kept is not None:
            patches = _patch_keys(session, kept)
            shares = distribution(patches).mean(2)
            name = f"vision_{query}"
            saved |= _difference(name, mass(shares, mask))
            saved |= _difference(name, mass(patches, mask).mean(2), "_raw")
            saved[f"divergence_{name}"] = _divergences(distribution(shares))
    return saved


def _difference(name: str, runs: Float[np.ndarray, "runs *rest"], suffix: str = "") -> Saved:
    return {
        f"{name}_with{suffix}": runs[WITH],
        f"{name}_without{suffix}": runs[WITHOUT],
        f"{name}_diff{suffix}": runs[WITH] - runs[WITHOUT],
    }


def _divergences(runs: Float[np.ndarray, "runs *rest tokens"]) -> Saved:
    """Divergences of two runs' distributions; NaN where a run has no attention to the image."""
    p, q = runs[WITH], runs[WITHOUT]
    there = (p.sum(-1) > 0) & (q.sum(-1) > 0)
    divergences: Saved = {}
    for name in ("kl", "js", "js_distance"):
        measured = np.full(there.shape, np.nan)
        measured[there] = getattr(divergence, name)(p[there], q[there])
        divergences[name] = measured
    return divergences


def _patch_keys(session: Session, rows: Tensor) -> Float[np.ndarray, "runs layers heads patches"]:
    """Attention to the patches: a class token's key and padding's stand for no place."""
    return rows[..., session.prompt.placed_in(rows.shape[-1])].numpy().astype(np.float64)


def kept_run(session: Session, run: int, answer: str) -> Saved:
    """Return what is kept of one run: its attention, answer and picture."""
    prompt, trace = session.prompt, session.base.trace
    image = session.pair.with_image if run == WITH else session.pair.without_image
    logits = trace.logits[run]
    yes, no = float(logits[prompt.answers.yes]), float(logits[prompt.answers.no])
    small = image.copy()
    small.thumbnail((_KEPT_PIXELS, _KEPT_PIXELS))
    ids = prompt.input_ids.cpu()
    assert trace.lm_rows is not None
    saved: Saved = {
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
            saved[name] = torch.from_numpy(_patch_keys(session, kept)[run]).float()
    return saved


def tensors(arrays: Saved) -> Saved:
    """Turn arrays into tensors, float64 into float32."""
    plain: Saved = {}
    for key, value in arrays.items():
        if isinstance(value, dict):
            plain[key] = tensors(value)
        elif isinstance(value, np.ndarray):
            tensor = torch.from_numpy(np.ascontiguousarray(value))
            plain[key] = tensor.float() if tensor.is_floating_point() else tensor
        else:
            plain[key] = value
    return plain
