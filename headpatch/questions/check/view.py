"""What people see of a model that was tried."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from headpatch.core.question import Context, Files
from headpatch.present.model_view import model_view_chart, model_view_text
from headpatch.present.parts import Grid, Part, Words
from headpatch.present.tables import says


def view(files: Files, context: Context) -> Iterator[Part]:
    """Show the model and the prompt, what each scope allows, and what cannot be done."""
    report = files["check"]
    yield _model(report)
    if report.get("view"):
        yield from _model_view(*report["view"])
    ways = report["ways"] + ",\nreference pairs included" * report["means"]
    yield _scopes(report["positions"], ways, "positions", "widening pass", "head")
    if vision := report["vision_positions"]:
        yield _scopes(vision, ways, "vision tokens", "resumed pass", "vision head")
    for limit in report["limits"]:
        yield Words(f"- {limit}")


def _model(facts: Mapping[str, Any]) -> Grid:
    lm, vision = facts["language_model"], facts["vision_tower"]
    grouped = f"grouped queries, {lm['key_value_heads']} key/value heads"
    patches = " × ".join(map(str, facts["image_grid"]))
    rows = {
        "model": f"{facts['model']} ({facts['class']}, family {facts['family']})",
        "weights": f"{facts['parameters']:,} parameters, {facts['weights']}",
        "runs on": f"{facts['device']}, {facts['dtype']}, {facts['threads']} CPU thread(s)",
        "language model": f"{_grid(lm)}, hidden size {lm['hidden_size']}, "
        + (grouped if lm["grouped_query"] else "every head with keys of its own"),
        "vision tower": "cannot be changed in this family" if vision is None else _tower(vision),
        "question": facts["question"],
        "answers": ", ".join(
            f"{word} = token {one['id']} {one['text']!r}{_summed(one)}"
            for word, one in facts["answers"].items()
        ),
        "prompt": repr(facts["prompt"]),
        "prompt's tokens": f"{facts['prompt_tokens']}, {facts['image_tokens']} of them of the image"
        + (f", {patches} patches" if any(facts["image_grid"]) else ""),
        "LD": f"with {facts['ld_with']:+.3f}, without {facts['ld_without']:+.3f} logits"
        + ("" if facts["valid"] else f": no valid study, {'; '.join(facts['invalid_because'])}"),
        **{
            f"says {run}": says(list(facts["answers"]), reading)
            for run, reading in facts["answer_probabilities"].items()
        },
        "one forward pass": f"{facts['seconds_forward']:.3g} s",
    }
    return Grid("Model and prompt", ("", " "), tuple(rows.items()), (False, False), wrapped=" ")


def _model_view(images: Any, boxes: Any, region: Any) -> Iterator[Part]:
    """Draw what the model is given of both pictures: as text, and as a chart for Python."""
    if text := model_view_text(images, boxes, region):
        yield Words(text, "terminal")
    chart = model_view_chart(images, boxes, region, ("With the object", "Without the object"))
    if chart is not None:
        yield chart


def _scopes(
    scopes: Mapping[str, Mapping[str, Any] | str], ways: str, where: str, path: str, what: str
) -> Grid:
    """Show, by scope, whether the fast path is exact and what sweeps in one and all ways cost."""
    figures = ("tokens", path, "off by", "allowed", "noise floor")
    headings = (where, *figures, "1 kind, 1 direction", ways)
    title = f"Sweeps of every {what}: exactness (logits) and cost (forward passes of the prompt)"
    rows = tuple(
        (name, "none", *[""] * 6) if isinstance(scope, str) else (name, *_tried(scope))
        for name, scope in scopes.items()
    )
    return Grid(title, headings, rows, (False, True, False, *[True] * 5))


def _tried(scope: Mapping[str, Any]) -> Iterator[str]:
    yield str(scope["tokens"])
    yield "exact" if scope["exact"] else "not used"
    yield "" if math.isinf(scope["worst"]) else f"{scope['worst']:.1e}"
    yield f"{scope['allowed']:.1e}"
    yield f"{scope['noise_floor']:.1e}"
    yield _passes(scope["passes_once"])
    yield _passes(scope["passes"])


def _passes(count: float) -> str:
    return f"{count:,.1f}" if count < 100 else f"{count:,.0f}"


def _summed(answer: Mapping[str, Any]) -> str:
    """Name the other spellings that are summed with an answer's token."""
    others = answer.get("summed_with", {})
    return f" with {', '.join(map(repr, others))}" if others else ""


def _grid(tower: Mapping[str, Any]) -> str:
    return f"{tower['layers']} layers × {tower['heads']} heads, {tower['head_dim']} a head"


def _tower(vision: Mapping[str, Any]) -> str:
    token = "with" if vision["class_token"] else "without"
    return f"{_grid(vision)}, {token} class token; layer {vision['feature_layer']} is read"
