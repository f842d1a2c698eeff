"""Made-up results in the shapes and types that a run writes."""

from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image, ImageDraw

from headpatch.stats.attention_mass import QUADRANTS, distribution, mass, quadrant_masks
from headpatch.stats.divergence import js, js_distance, kl

QUESTION = 'Is there anything in the top left corner? It costs $5 or $\\alpha$, "really".'


def tensors(results: dict[str, Any]) -> dict[str, Any]:
    """Turn arrays into the tensors that a loaded ``.pt`` file gives."""
    return {
        key: torch.from_numpy(
            value.astype(np.float32) if value.dtype.kind == "f" else value.astype(np.int64)
        )
        if isinstance(value, np.ndarray)
        else tensors(value)
        if isinstance(value, dict)
        else value
        for key, value in results.items()
    }


def per_head(layers: int, heads: int, top: int = 20, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    image = rng.beta(1.0, 4.0, (layers, heads))
    image.flat[:: max(1, heads // 2)] *= 0.02  # some heads hardly look
    without = rng.beta(2, 6, (layers, heads))
    with_ = np.clip(without + rng.normal(0.02, 0.13, (layers, heads)), 0, 1)
    diff = with_ - without
    rank = np.empty(diff.size, dtype=np.int64)
    rank[np.argsort(-diff, axis=None)] = np.arange(1, diff.size + 1)
    rank = rank.reshape(diff.shape)
    counts = (rank <= top).sum(axis=1)
    raw = {"with_raw": with_ * image, "without_raw": without * image, "diff_raw": diff * image}
    shares = {"with": with_, "without": without, "diff": diff}
    return tensors({**shares, **raw, "rank": rank, "layer_counts": counts, "top": top})


def spatial(lm_layers: int, vision_layers: int, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    by_layer = [rng.dirichlet(np.full(4, 9.0), lm_layers) for _ in range(2)]
    results: dict[str, Any] = {
        "quadrant_names": list(QUADRANTS),
        "quadrants_with": by_layer[0].mean(0),
        "quadrants_without": by_layer[1].mean(0),
        "quadrants_diff": by_layer[0].mean(0) - by_layer[1].mean(0),
        "quadrants_by_layer_with": by_layer[0],
        "quadrants_by_layer_without": by_layer[1],
        "feature_layer": vision_layers - 2,
    }
    for query in ("vision_cls", "vision_patch"):
        runs = 0.25 + 0.1 * np.cumsum(rng.normal(0, 0.15, (2, vision_layers)), axis=1)
        runs = np.clip(runs, 0.01, 0.9)
        for suffix, scale in (("", 1.0), ("_raw", 0.7)):
            results[f"{query}_with{suffix}"] = scale * runs[0]
            results[f"{query}_without{suffix}"] = scale * runs[1]
            results[f"{query}_diff{suffix}"] = scale * (runs[0] - runs[1])
        results[f"divergence_{query}"] = _divergences(rng, vision_layers)
    results["divergence_lm"] = _divergences(rng, lm_layers)
    results["divergence_overall"] = {"kl": 1.7054, "js": 0.2165, "js_distance": 0.4653}
    return tensors(results)


def _divergences(rng: np.random.Generator, layers: int) -> dict[str, np.ndarray]:
    p, q = rng.dirichlet(np.full(64, 0.8), (2, layers))
    return {"kl": kl(p, q), "js": js(p, q), "js_distance": js_distance(p, q)}


def pair(width: int = 336, height: int = 336) -> tuple[Image.Image, Image.Image]:
    """The seed's scene: a white triangle top left, a red square lower middle; and without it."""
    pictures = []
    for present in (True, False):
        picture = Image.new("RGB", (width, height))
        draw = ImageDraw.Draw(picture)
        draw.rectangle([0.4 * width, 0.6 * height, 0.6 * width, 0.8 * height], fill="red")
        if present:
            corners = [(0.1, 0.3), (0.3, 0.3), (0.2, 0.1)]
            draw.polygon([(x * width, y * height) for x, y in corners], fill="white")
        pictures.append(picture)
    return pictures[0], pictures[1]


def boxes(rows: int, cols: int) -> np.ndarray:
    y, x = np.mgrid[:rows, :cols].reshape(2, -1)
    return np.stack([x / cols, y / rows, (x + 1) / cols, (y + 1) / rows], axis=1)


def attention(
    layers: int, heads: int, token_boxes: np.ndarray, present: bool, seed: int = 0
) -> dict[str, Any]:
    rng = np.random.default_rng(seed + present)
    tokens, text = len(token_boxes), 12
    centres = token_boxes.reshape(-1, 2, 2).mean(axis=1)
    bump = np.exp(-((centres - 0.2) ** 2).sum(1) / 0.01)
    looks = rng.beta(1, 2, (layers, heads, 1)) * (20.0 if present else 3.0)
    rows = rng.gamma(0.5, 1.0, (layers, heads, tokens)) + looks * bump
    rows *= rng.beta(1, 3, (layers, heads, 1)) / rows.sum(-1, keepdims=True)
    rest = (1 - rows.sum(-1, keepdims=True)) / text
    pad = np.broadcast_to(rest, (layers, heads, text))
    lm_rows = np.concatenate([pad[..., :5], rows, pad[..., 5:]], axis=-1)
    results = {"lm_rows": lm_rows, "image_positions": np.arange(5, 5 + tokens),
               "boxes": token_boxes, "grid": np.array([round(tokens**0.5)] * 2),
               "input_ids": np.arange(tokens + text),
               "region_box": np.array([0.0, 0.0, 0.5, 0.5])}  # fmt: skip
    found = "Yes, there is a triangle" if present else "No, there is nothing"
    words = {"tokens": ["x"] * (tokens + text), "ld": 3.2 if present else -4.1, "logit_yes": 5.0,
             "logit_no": 1.8, "answer": f"{found} in the top left corner of the image.",
             "question": QUESTION, "region_name": "top-left"}  # fmt: skip
    return {**tensors(results), **words}


def effects(heads: list[str], pairs: int = 1, joint: bool = True, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    named = [(name, "head") for name in heads]
    if joint and len(heads) > 1:
        named.append(("+".join(heads), "joint"))
    rows = []
    for p in range(pairs):
        for direction in ("noising", "denoising"):
            base = "Yes" if direction == "noising" else "No"
            for kind in ("zero", "mean", "resample"):
                for name, role in named:
                    value = rng.normal(0.15 if role == "head" else 0.6, 0.15)
                    after = {"Yes": "No", "No": "Yes"}[base] if value > 0.5 else base
                    row = [name, kind, direction, value, role, after, 0.02, 0.05, 20]
                    rows.append([f"pair{p}", base, "answer", 3.2, -4.1, *row])
            row = [heads[0], "resample", direction, 2e-6, "noise floor", base, None, None, None]
            rows.append([f"pair{p}", base, "answer", 3.2, -4.1, *row])
    columns = ["pair", "answer_before", "positions", "ld_with", "ld_without", "heads", "kind",
               "direction", "normalized", "role", "answer_after", "control_mean", "control_sd",
               "control_n"]  # fmt: skip
    table = pd.DataFrame(rows, columns=columns)
    gap = table["ld_with"] - table["ld_without"]
    noising = table["direction"] == "noising"
    table["effect"] = (table["normalized"] * gap).where(~noising, -table["normalized"] * gap)
    table["ld"] = table["effect"] + table["ld_without"].where(~noising, table["ld_with"])
    return table


CUT_GAP = 20.0  # logits


def cuts(
    places: list[str],
    role: str,
    edges: tuple[str, ...] = ("answer-region", "question-other"),
    seed: int = 0,
) -> pd.DataFrame:
    """Made-up results; `answer-region` has controls."""
    rng = np.random.default_rng(seed)
    rows = []
    for index, place in enumerate(places):
        for edge in edges:
            for run, sign in (("with", -1), ("without", 1)):
                share = float(rng.normal(0.2, 0.3))
                heads, layers = ("", place) if role in ("window", "layers") else (place, "")
                mean, sd, n = (0.05, 0.02, 10) if "region" in edge else (np.nan, np.nan, 0)
                rows.append(
                    {"pair": "1-2", "edge": edge, "heads": heads, "layers": layers,
                     "centre": float(index) if role == "window" else np.nan, "run": run,
                     "ld_with": 12.0, "ld_without": 12.0 - CUT_GAP, "ld": 0.0,
                     "effect": sign * share * CUT_GAP, "normalized": share, "role": role,
                     "answer_before": "Yes", "answer_after": "No" if share > 0.6 else "Yes",
                     "control_mean": mean, "control_sd": sd, "control_n": n}
                )  # fmt: skip
    return pd.DataFrame(rows)


def quadrant_shares(rows: np.ndarray, token_boxes: np.ndarray) -> np.ndarray:
    """Each quadrant's share of a row, in the order of :data:`QUADRANTS`."""
    return np.stack([mass(distribution(rows), m) for m in quadrant_masks(token_boxes)])


def agreement() -> dict[str, float | int]:
    """How estimates agree with exact effects: the figures of one kind and direction."""
    return {"pearson": 0.29, "pearson_low": -0.12, "pearson_high": 0.71, "spearman": 0.97,
            "top_recall": 0.85, "top_recall_chance": 0.02, "k": 20, "heads": 1024}  # fmt: skip
