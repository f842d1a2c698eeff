"""Folders of made-up results, file for file as the verbs write them."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml

from headpatch.core.output.files import write_columns
from headpatch.core.output.folder import Results, find
from headpatch.core.study.study import Study
from headpatch.present.section import Section
from headpatch.questions.path.columns import PATH
from headpatch.questions.rollout.columns import ROLLOUT
from headpatch.questions.trace.records import MEASURES
from headpatch.questions.verdict.charts import CLASSES
from headpatch.stats.attention_mass import distribution, mass, region_mask
from tests.report import synthetic

LAYERS, HEADS = 6, 4
QUESTION = "Is there anything in the top left corner?"


def section(make: Callable[[Results], Section | None], folder: Path) -> Section:
    """Make a section of a folder that has what it needs."""
    found = make(find(folder))
    assert found is not None
    return found


def run_yaml(folder: Path, study: Mapping[str, Any] | None = None, **run: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    values = yaml.safe_load(Study().to_yaml()) | dict(study or {})
    seen = {"when": "2026-01-01", "valid": True, "ld_with": 3.2, "ld_without": -4.1,
            "noise_floor": 2e-6, "model": "demo", "weights": "sha256:1", "device": "cpu",
            "dtype": "float32", "commit": "abc", "headpatch": "0"}  # fmt: skip
    text = yaml.safe_dump({"study": values, "run": seen | run}, allow_unicode=True)
    (folder / "run.yaml").write_text(text, encoding="utf-8")


def over_pairs(folder: Path, study: Mapping[str, Any] | None = None, **run: Any) -> None:
    run_yaml(folder, study, **{"pairs": 3, "passed": 2, "run": 2, **run})
    gate = {"pair": ["a", "b", "c"], "line": [2, 3, 4], "region": ["top-left"] * 3,
            "question": [QUESTION] * 3, "ld_with": [3.0, 2.0, -1.0],
            "ld_without": [-3.0, -2.0, -4.0], "passed": [True, True, False],
            "reason": ["", "", "says No of the picture with the object"]}  # fmt: skip
    write_columns(folder / "gate.csv", gate)


def write(path: Path, table: Mapping[str, Any] | pd.DataFrame, **more: Any) -> None:
    """Write a table; a value instead of a column stands in every row."""
    columns = pd.DataFrame(table).assign(**more)
    write_columns(path, {str(name): list(columns[name]) for name in columns})


def save(path: Path, content: Mapping[str, Any]) -> None:
    torch.save(synthetic.tensors(dict(content)), path)


def rank(
    folder: Path,
    layers: int = LAYERS,
    heads: int = HEADS,
    side: int = 4,
    answer: str = "",
    study: Mapping[str, Any] | None = None,
) -> None:
    run_yaml(folder, study)
    boxes = synthetic.boxes(side, side)
    region = region_mask(boxes, (0.0, 0.0, 0.5, 0.5))
    columns: dict[str, Any] = {}
    for name, image in zip(("with", "without"), synthetic.pair(120, 120), strict=True):
        attention = synthetic.attention(layers, heads, boxes, name == "with")
        attention |= {"image": torch.from_numpy(np.array(image)), "valid": True}
        if answer:
            attention["answer"] = answer
        torch.save(attention, folder / f"attention_{name}_triangle.pt")
        rows = attention["lm_rows"].double().numpy()[..., attention["image_positions"].numpy()]
        columns[name] = mass(distribution(rows), region).ravel()
        columns[f"{name}_raw"] = mass(rows, region).ravel()
    for end in ("", "_raw"):
        columns[f"diff{end}"] = columns[f"with{end}"] - columns[f"without{end}"]
    order = np.argsort(-columns["diff"])
    table = {"rank": np.arange(1, order.size + 1), "layer": order // heads, "head": order % heads}
    table |= {name: values[order] for name, values in columns.items()}
    write(folder / "heads.csv", table)
    torch.save(synthetic.per_head(layers, heads), folder / "per_head_analysis.pt")
    torch.save(synthetic.spatial(layers, 5), folder / "spatial_vision_analysis.pt")


def effects_of(layers: int, heads: int, seed: int = 0) -> np.ndarray:
    """Small effects, and that of head 3.2, which is large."""
    values = np.random.default_rng(seed).normal(0, 0.004, (layers, heads))
    values[3, 2] = 0.6
    return values


def swept(folder: Path, content: Mapping[str, Any]) -> None:
    """Write a sweep: its tensors, and the same as a table; of many pairs their means."""
    save(folder / "sweep.pt", content)
    names = {"head": content["heads"]}
    values = {"head": content["normalized"]}
    if whole := content.get("layer_normalized"):
        last = len(next(iter(whole.values())))
        names["layer"] = [f"v{layer}.0+v{layer}.1" for layer in range(last)]
        values["layer"] = whole
    rows = [
        {"pair": "0", "heads": name, "kind": way.split("_")[0], "direction": way.split("_")[1],
         "positions": content["positions"], "ld_with": 3.2, "ld_without": -4.1, "ld": 0.0,
         "effect": 7.3 * value, "normalized": value, "role": role, "attention_rank": np.nan,
         "answer_before": "Yes", "answer_after": "Yes"}
        for role, maps in values.items()
        for way, effects in maps.items()
        for name, value in zip(names[role], np.ravel(effects), strict=True)
    ]  # fmt: skip
    table = pd.DataFrame(rows)
    write(folder / "effects.csv", table)
    if "pair_names" in content:
        ends = {f"{name}{end}": table[name] for name in ("effect", "normalized")
                for end in ("_low", "_high")}  # fmt: skip
        pairs = len(content["pair_names"])
        write(folder / "effects_mean.csv", table, answer_changed=0.0, pairs=pairs, **ends)


def sweep(folder: Path, layers: int = LAYERS, heads: int = HEADS, pairs: int = 0) -> None:
    run_yaml(folder)
    ways = ("zero_noising", "zero_denoising", "resample_noising", "resample_denoising")
    maps = {way: effects_of(layers, heads, seed) for seed, way in enumerate(ways)}
    more = {"valid": True, "question": QUESTION, "region_name": "top-left"}
    names = [f"{i}.{j}" for i in range(layers) for j in range(heads)]
    swept(folder, _swept(maps, names, pairs) | {"positions": "answer"} | more)


def _swept(maps: Mapping[str, np.ndarray], names: list[str], pairs: int) -> dict[str, Any]:
    """What a sweep of either tower keeps."""
    effect = {way: 7.3 * values for way, values in maps.items()}
    many = {"pair_names": [str(pair) for pair in range(pairs)]} if pairs else {}
    return {"normalized": maps, "effect": effect, "heads": names, "noise_floor": 0.002,
            "ld_with": 3.2, "ld_without": -4.1, **many}  # fmt: skip


def ablate(folder: Path) -> None:
    run_yaml(folder)
    write(folder / "effects.csv", synthetic.effects(["3.2", "1.1"]))


def cut(folder: Path) -> None:
    run_yaml(folder)
    write(folder / "cuts.csv", synthetic.cuts(["0-1", "1-2", "2-3"], "window"))


def verdict(folder: Path, layers: int = LAYERS, heads: int = HEADS, failed: bool = False) -> None:
    over_pairs(folder)
    rng = np.random.default_rng(5)
    count = layers * heads
    need, enough = effects_of(layers, heads).ravel(), effects_of(layers, heads, 1).ravel()
    looks = rng.normal(0.05, 0.1, count)
    names = np.array(["inert"] * count, dtype=object)
    names[3 * heads + 2] = "necessary+sufficient"
    names[: len(CLASSES) - 1] = list(CLASSES)[1:]
    columns: dict[str, Sequence[Any]] = {
        "layer": np.repeat(np.arange(layers), heads),
        "head": np.tile(np.arange(heads), layers),
        "verdict": names,
        "attention_rank": np.argsort(np.argsort(-looks)) + 1,
        "partners": ["1.1;2.0" if name == "redundant" else "" for name in names],
    }
    for name, values in (("attention_diff", looks), ("necessity", need), ("sufficiency", enough)):
        columns |= {name: values, f"{name}_low": values - 0.01, f"{name}_high": values + 0.01,
                    f"{name}_q": np.clip(rng.random(count), 0, 1)}  # fmt: skip
    write(folder / "verdicts.csv", columns, necessity_layer_p=0.031, sufficiency_layer_p=0.031)
    maps = np.stack([need, enough]).reshape(2, 1, layers, heads)
    noise = rng.normal(0, 0.001, (2, 30, layers, heads))
    saved = {"attention_diff": looks.reshape(1, layers, heads) + noise[0], "level": 0.95}
    saved |= {"resample_noising": maps[0] + noise[0], "resample_denoising": maps[1] + noise[1]}
    save(folder / "verdict.pt", saved)
    mean = np.arange(5) / 100
    vision = {"layer": np.arange(5), "necessity": mean, "necessity_low": mean - 0.01,
              "necessity_high": mean + 0.02}  # fmt: skip
    write(folder / "vision.csv", vision, necessity_q=1.0, pairs=30)
    nulls = {"null": ["self-patch", "mirrored"],
             "figure": ["largest effect", "share of <b>pairs</b>"], "value": [1e-7, np.nan],
             "limit": ["below δ", "at least 0.95"],
             "outcome": ["failed" if failed else "passed", "not tested"], "pairs": [30, 0],
             "note": ["", "no side to mirror"]}  # fmt: skip
    write(folder / "nulls.csv", nulls)
    curves = [
        {"ranking": name, "way": way, "k": k, "share": share, "share_low": share - 0.1,
         "share_high": share + 0.1, "area": 0.5, "area_low": 0.4, "area_high": 0.6, "draws": 1,
         "pairs": 30}
        for name in ("attention", "effect", "random")
        for way in ("keep", "remove")
        for k, share in ((0, 0.0), (1, 0.5), (24, 1.0))
    ]  # fmt: skip
    write(folder / "faithfulness.csv", pd.DataFrame(curves))


def combine(folder: Path) -> None:
    run_yaml(folder)
    rows = []
    for way in ("noising", "denoising"):
        for name in ("3.2", "1.1"):
            rows.append([name, "head", way, 0.3, 0.3, np.nan, "", 1])
        rows.append(["1.1+3.2", "pair", way, 0.9, 0.6, 0.3, "redundancy", 1])
    names = ["heads", "role", "direction", "normalized", "sum", "interaction", "word", "pairs"]
    ends = dict.fromkeys(("interaction_low", "interaction_high"), np.nan)
    write(folder / "combinations.csv", pd.DataFrame(rows, columns=names), kind="resample", **ends)
    head = {"heads": ["3.2"], "kind": ["resample"], "direction": ["noising"]}
    write(folder / "selfrepair.csv", head, direct=0.5, renormed=0.5, total=0.3, repair=0.2,
          other_heads=0.0, mlps=-0.2, norm=0.0)  # fmt: skip
    write(folder / "selfrepair_parts.csv", head, rank=1, part="mlp 4", change=-0.2)


def path(folder: Path) -> None:
    run_yaml(folder)
    ways = ("noising", "denoising")

    def curves(names: tuple[str, ...], layers: int, most: float) -> dict[str, Any]:
        values = np.linspace(0, most, layers)
        return {name: dict.fromkeys(ways, values) for name in names}

    saved = {
        "stream": curves(("region", "answer"), LAYERS, 1.0),
        "vision": curves(("all",), 5, 0.8),
        "edges": curves(("answer-region",), LAYERS, 0.5),
        "heads": ["3.2"],
        "ways": [["values", "region"]],
        "head_paths": dict.fromkeys(ways, np.array([[0.4]])),
        "attribution_heads": np.full((LAYERS, HEADS), 0.1),
        "attribution_mlps": np.full(LAYERS, 0.2),
        "window": 5,
        "feature_layer": 3,
    }
    save(folder / "path.pt", saved)
    columns = {column.name: [""] for column in PATH}
    write_columns(folder / "path.csv", columns | {"layer": [0], "normalized": [0.5]})


def trace(folder: Path, tokens: Sequence[str] = ("Yes", "there", "is")) -> None:
    run_yaml(folder)
    rng = np.random.default_rng(2)
    shape = len(tokens), LAYERS, HEADS
    save(
        folder / "trace.pt",
        {
            "tokens": list(tokens),
            "forced": ["with"] * len(tokens),
            "index": np.arange(len(tokens)),
            "rivals": ["No", *[""] * (len(tokens) - 1)],
            "measures": ["contrast", *["logit"] * (len(tokens) - 1)],
            "says_with": list(tokens),
            "says_without": list(tokens),
            **{
                f"{name}_{end}": rng.normal(place, 1, len(tokens))
                for name in MEASURES
                for place, end in ((8, "with"), (2, "without"), (0, "floor"))
            },
            **{name: rng.normal(0, 0.2, shape) for name in ("diff", "with", "without")},
            **{
                f"effect_{name}": {"resample_noising": rng.normal(0, 0.5, shape)}
                for name in MEASURES
            },
        },
    )


def tower(folder: Path, pairs: int = 0) -> None:
    """A sweep of 5 × 2 vision heads, of which the language model reads the first 4 layers."""
    run_yaml(folder)
    maps = {f"resample_{way}": np.random.default_rng(seed).normal(0, 0.004, (5, 2))
            for seed, way in enumerate(("noising", "denoising"))}  # fmt: skip
    for values in maps.values():
        values[1, 1], values[4] = 0.3, 0.0
    layers = {way: values.sum(1) for way, values in maps.items()}
    more = {"layer_normalized": layers, "tower": "vision", "feature_layer": 3,
            "positions": "patches"}  # fmt: skip
    swept(folder, _swept(maps, [f"v{i}.{j}" for i in range(5) for j in range(2)], pairs) | more)


def approx(folder: Path, pairs: int = 0) -> None:
    """Estimates that are right but for head 3.2, whose large effect they miss."""
    sweep(folder, pairs=pairs)
    exact = {f"resample_{way}": 7.3 * effects_of(LAYERS, HEADS, seed)
             for seed, way in enumerate(("noising", "denoising"))}  # fmt: skip
    estimates = {way: values.copy() for way, values in exact.items()}
    estimates["resample_noising"][3, 2] = -0.25
    agreed = {"pearson": 0.5, "pearson_low": 0.25, "pearson_high": 0.75, "spearman": 0.625,
              "top_recall": 0.875, "top_recall_chance": 0.125, "k": 3, "heads": 24}  # fmt: skip
    more: dict[str, Any] = {}
    if pairs:
        agreed |= {f"of_means_pearson{end}": 0.375 for end in ("", "_low", "_high")}
        agreed |= {"top_recall_low": 0.8, "top_recall_high": 0.9, "of_means_spearman": 0.5,
                   "of_means_top_recall": 0.75, "pairs": pairs}  # fmt: skip
        more = {"pairs": pairs, "pair_names": [str(pair) for pair in range(pairs)]}
    content = {
        "approx": estimates,
        "effect": exact,
        "agreement": dict.fromkeys(exact, agreed),
        "tower": "lm",
        "positions": "answer",
        "level": 0.95,
        "noise_floor": 0.002,
    }
    save(folder / "approx.pt", content | more)


def rollout(folder: Path, token: str = "Yes", rival: str = "No", checked: bool = True) -> None:
    """A map that finds the region's 4 of 16 patches, and one that is even."""
    run_yaml(folder)
    boxes = synthetic.boxes(4, 4)
    region = (0.0, 0.0, 0.5, 0.5)
    inside = region_mask(boxes, region)
    pictures = [np.array(image) for image in synthetic.pair(120, 90)]
    maps = {"rollout_patches": np.ones((2, 16)), "relevance_tokens": np.stack([inside] * 2) + 0.0}
    content = {"maps": maps, "elsewhere": {name: np.array([0.25, 0.5]) for name in maps},
               "boxes": boxes, "region_box": np.array(region), "in_region": inside,
               "answer": token, "index": 0, "token": token, "rival": rival, "base_with": 3.2,
               "base_without": -4.1, "fill": "other", "image_with": pictures[0],
               "unchecked": "" if checked else "both runs would say 'Yes' here",
               "image_without": pictures[1]}  # fmt: skip
    save(folder / "rollout.pt", content)
    write_columns(folder / "rollout.csv", {column.name: [] for column in ROLLOUT})
    if checked:
        curves = [[run, way, name, draw, k, share]
                  for run in ("with", "without") for way in ("delete", "insert")
                  for name, draw, shares in (("rollout_patches", 0, (0, 0, 1)),
                                             ("relevance_tokens", 0, (0, 1, 1)),
                                             ("random", 0, (0, 0.2, 1)), ("random", 1, (0, 0.4, 1)))
                  for k, share in zip((0, 4, 16), shares, strict=True)]  # fmt: skip
        curves += [[run, way, "region", 0, 4, 0.9] for run in ("with", "without")
                   for way in ("delete", "insert")]  # fmt: skip
        names = ["run", "way", "order", "draw", "k", "share"]
        write(folder / "perturbation.csv", pd.DataFrame(curves, columns=names), ld=0.0)


def claims(folder: Path, claim: str = "head 3.2 is necessary") -> None:
    run_yaml(folder, {"claims": [claim, "layer 1 sees"]})
    columns = {"claim": [claim, "layer 1 sees"], "outcome": ["supported", "not testable"],
               "figure": [f"{claim}: 0.6", ""], "failed_nulls": ["", ""]}  # fmt: skip
    write_columns(folder / "claims.csv", columns)


def everything(folder: Path) -> Path:
    """Write what every verb writes: one folder holds several, the others have one each."""
    rank(folder)
    sweep(folder / "sweep")
    ablate(folder / "named")
    cut(folder / "cuts")
    verdict(folder / "verdict")
    combine(folder / "combine")
    path(folder / "path")
    trace(folder / "trace")
    tower(folder / "tower")
    approx(folder / "sweep")
    rollout(folder / "rollout")
    claims(folder / "claims")
    return folder
