"""Tables of `headpatch sweep` and `headpatch check` for a terminal."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from headpatch.kinds import kind_label
from headpatch.present.effects_view import unread_words as unread
from headpatch.present.tables import plain_table, says

__all__ = [
    "correlations",
    "layers",
    "limits",
    "model",
    "scopes",
    "top",
    "unlisted",
    "unread",
    "vision_scopes",
]
_CAUTION = (
    "One pair and one model: this describes the pair, it tests nothing. Heads are not independent "
    "draws, so no p-value is given."
)


def top(rows: Sequence[Mapping[str, Any]], floor: float, noise: int) -> RenderableType:
    """Show each direction's heads with the largest effects, beside their attention rank.

    Parameters
    ----------
    rows
        Of `headpatch.questions.sweep.one.Sweep.top`.
    floor, noise
        Noise floor in logits, and how many heads or sets it was measured on.
    """
    parts = [
        _top_of(direction, [row for row in rows if row["direction"] == direction])
        for direction in dict.fromkeys(row["direction"] for row in rows)
    ]
    approx = ""
    if any("approx" in row for row in rows):
        approx = " approx: what gradients estimate of the effect."
    note = (
        "effect: shift of LD in logits, of the kind that sorts. Other columns: effect as a share "
        "of the difference between the runs (0 = nothing, 1 = all of it, negative = the other "
        f"way). In brackets: not above the noise floor, {floor:.1e} logits: the largest effect of "
        f"patching with its own z, over {noise} of them drawn by the seed, or what sets the fast "
        f"path apart from plain passes, if that is more.{approx}"
    )
    return Group(*parts, Text(note))


def unlisted(
    largest: Sequence[Mapping[str, Any]], listed: Sequence[Mapping[str, Any]]
) -> RenderableType | None:
    """Name the largest effect of each kind and direction that is in no table.

    Parameters
    ----------
    largest
        Of a sweep's ``largest``: of one pair, or of many.
    listed
        The tables' rows, of its ``top``. Of one pair they give the share of every kind, of many
        that of the kind that sorts.
    """
    known = {
        (kind, row["direction"], row["heads"])
        for row in listed
        for kind in (row["normalized"] if isinstance(row["normalized"], dict) else [row["kind"]])
    }
    words = [
        f"{kind_label(row['kind'], row)} {row['direction']} {row['heads']} {_effect(row)} (share "
        f"{_share(row['normalized'])})"
        for row in largest
        if (row["kind"], row["direction"], row["heads"]) not in known
    ]
    if not words:
        return None
    return Text(f"Largest of their kind and direction, in no table here: {'; '.join(words)}.")


def layers(rows: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Show each direction's whole layers with the largest effects.

    Parameters
    ----------
    rows
        Of `headpatch.questions.sweep.one.Sweep.top`, of layers.
    """
    return Group(
        *(
            _top_of(direction, [row for row in rows if row["direction"] == direction], "layer")
            for direction in dict.fromkeys(row["direction"] for row in rows)
        )
    )


def _top_of(
    direction: str, rows: Sequence[Mapping[str, Any]], what: str = "heads"
) -> RenderableType:
    first = rows[0]["kind"]
    kinds = [first, *(kind for kind in rows[0]["normalized"] if kind != first)]
    question = {"noising": "necessary?", "denoising": "sufficient?"}[direction]
    ranked = any(row["attention_rank"] is not None for row in rows)
    approx = any("approx" in row for row in rows)
    table = plain_table(
        "",
        what,
        "effect",
        *["approx"] * approx,
        *kinds,
        "answer",
        *["attention rank"] * ranked,
        title=f"{direction} ({question}): largest effects of {kind_label(first, rows[0])}"
        + ", whole layers" * (what == "layer"),
        wrapped=what if max(len(row["heads"]) for row in rows) > 30 else None,
    )
    for row in rows:
        changed = row["answer_before"] != row["answer_after"]
        answer = f"{row['answer_before']} → {row['answer_after']}" if changed else "same"
        rank = row["attention_rank"]
        table.add_row(
            str(row["place"]),
            row["heads"],
            _effect(row),
            *([f"{row['approx']:+.4f}"] if approx else []),
            *(_share(row["normalized"][kind]) for kind in kinds),
            Text(answer),
            *["" if rank is None else str(rank)] * ranked,
        )
    return table


def correlations(found: Mapping[str, float], heads: int) -> str:
    """Say how attention difference and effect go together on this pair."""
    listed = "; ".join(
        f"{way.replace('_', ' ')} " + ("undefined" if math.isnan(rho) else f"{rho:+.2f}")
        for way, rho in found.items()
    )
    return (
        f"Spearman's rho between attention difference and |effect|, over the {heads:,} heads of "
        f"this pair: {listed}. {_CAUTION}"
    )


def model(facts: Mapping[str, Any], seconds: float) -> RenderableType:
    """Show what a model is and how the study's pair reaches it."""
    lm, vision = facts["language_model"], facts["vision_tower"]
    grouped = f"grouped queries, {lm['key_value_heads']} key/value heads"
    rows = {
        "model": f"{facts['model']} ({facts['class']}, family {facts['family']})",
        "weights": f"{facts['parameters']:,} parameters, {facts['weights']}",
        "runs on": f"{facts['device']}, {facts['dtype']}, {facts['threads']} CPU thread(s)",
        "language model": f"{_grid(lm)}, hidden size {lm['hidden_size']}, "
        + (grouped if lm["grouped_query"] else "every head with keys of its own"),
        "vision tower": "cannot be changed in this family" if vision is None else _tower(vision),
        "question": facts["question"],
        "answers": ", ".join(
            f"{word} = token {one['id']} {one['text']!r}" for word, one in facts["answers"].items()
        ),
        "prompt": repr(facts["prompt"]),
        "prompt's tokens": f"{facts['prompt_tokens']}, {facts['image_tokens']} of them of the image"
        + (f", {_times(facts['image_grid'])} patches" if any(facts["image_grid"]) else ""),
        "LD": f"with {facts['ld_with']:+.3f}, without {facts['ld_without']:+.3f} logits"
        + ("" if facts["valid"] else f": no valid study, {'; '.join(facts['invalid_because'])}"),
        **{
            f"says {run}": says(list(facts["answers"]), reading)
            for run, reading in facts["answer_probabilities"].items()
        },
        "one forward pass": f"{seconds:.3g} s",
    }
    table = plain_table("", "", title="Model and prompt")
    table.show_header = False
    table.columns[1].no_wrap = False
    table.columns[1].overflow = "fold"
    for name, value in rows.items():
        table.add_row(name, Text(value))
    return table


def scopes(found: Mapping[str, Mapping[str, Any] | str], ways: int) -> RenderableType:
    """Show, scope by scope, whether the fast path is exact and what sweeps cost.

    Parameters
    ----------
    found
        By scope: the fields of `headpatch.questions.check.checks.Scope`, or why there is none.
    ways
        Kinds × directions of the study's sweep.
    """
    return _scopes(found, ways, "positions", "widening pass", "head")


def vision_scopes(found: Mapping[str, Mapping[str, Any] | str], ways: int) -> RenderableType:
    """Show the same of the vision tower, by its tokens."""
    return _scopes(found, ways, "vision tokens", "resumed pass", "vision head")


def _scopes(
    found: Mapping[str, Mapping[str, Any] | str], ways: int, where: str, path: str, what: str
) -> RenderableType:
    table = plain_table(
        where,
        "tokens",
        path,
        "off by",
        "allowed",
        "noise floor",
        "1 kind, 1 direction",
        f"all {ways}",
        title=f"Sweeps of every {what}: exactness (logits) and cost (forward passes of the prompt)",
    )
    for name, scope in found.items():
        if isinstance(scope, str):
            table.add_row(name, "none")
            continue
        worst = "" if math.isinf(scope["worst"]) else f"{scope['worst']:.1e}"
        table.add_row(
            name,
            str(scope["tokens"]),
            "exact" if scope["exact"] else "not used",
            worst,
            f"{scope['allowed']:.1e}",
            f"{scope['noise_floor']:.1e}",
            _passes(scope["passes_once"]),
            _passes(scope["passes"]),
        )
    return table


def limits(found: Sequence[str]) -> RenderableType:
    """List what cannot be done."""
    return Group(*(Text(f"- {one}") for one in found))


def _effect(row: Mapping[str, Any]) -> str:
    return f"({row['effect']:+.0e})" if row["below_floor"] else f"{row['effect']:+.4f}"


def _share(value: float) -> str:
    return "undefined" if math.isnan(value) else f"{value:+.4f}"


def _passes(count: float) -> str:
    return f"{count:,.1f}" if count < 100 else f"{count:,.0f}"


def _grid(tower: Mapping[str, Any]) -> str:
    return f"{tower['layers']} layers × {tower['heads']} heads, {tower['head_dim']} a head"


def _tower(vision: Mapping[str, Any]) -> str:
    token = "with" if vision["class_token"] else "without"
    return f"{_grid(vision)}, {token} class token; layer {vision['feature_layer']} is read"


def _times(grid: Sequence[int]) -> str:
    return " × ".join(map(str, grid))
