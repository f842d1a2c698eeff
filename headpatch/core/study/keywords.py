"""Options that each call takes by name, as types; ``make format`` writes this anew."""

from collections.abc import Sequence
from typing import Literal, TypeAlias, TypedDict, TypeVar

T = TypeVar("T")
Several: TypeAlias = T | Sequence[T]
"""One, or several."""


class VerdictKeywords(TypedDict, total=False):
    """Of `headpatch.verdict`."""

    split: float
    delta: float
    attention_delta: float
    positions: Literal["answer", "question", "image", "all"]
    source: Literal["twin", "other"]
    until_decided: int | None
    decide: str | None
    top: int
    rankings: Several[Literal["diff", "raw", "entropy", "localization", "text-image"]]
    groups: int
    partners: int
    search: int
    controls: int
    noise: int
    nulls: int
    vision: int
    followed: int
    attribution: int
    random: int
    by: str


class RankKeywords(TypedDict, total=False):
    """Of `headpatch.rank`."""

    top: int
    overlays: int
    by: str
    tau: float | None


class AblateKeywords(TypedDict, total=False):
    """Of `headpatch.ablate`."""

    kinds: Several[
        Literal["zero", "mean", "resample", "resample-other", "resample-same", "scale", "reweight"]
    ]
    alpha: Several[float]
    directions: Several[Literal["noising", "denoising"]]
    reference: int | None
    positions: Literal["answer", "question", "image", "all"]
    source: Literal["twin", "other"]
    toward: Literal["image", "region"]
    controls: int


class SweepKeywords(TypedDict, total=False):
    """Of `headpatch.sweep`."""

    kinds: Several[
        Literal["zero", "mean", "resample", "resample-other", "resample-same", "scale", "reweight"]
    ]
    alpha: float
    directions: Several[Literal["noising", "denoising"]]
    reference: int | None
    positions: Literal["answer", "question", "image", "all"] | Literal["class", "patches", "all"]
    source: Literal["twin", "other"]
    toward: Literal["image", "region"]
    tower: Literal["lm", "vision"]
    layers: bool
    approx: bool
    ig: int | None
    edges: int | None
    top: int
    noise: int
    rows: int | None
    budget: int | None


class CombineKeywords(TypedDict, total=False):
    """Of `headpatch.combine`."""

    kinds: Several[Literal["zero", "mean", "resample", "scale"]]
    alpha: float
    directions: Several[Literal["noising", "denoising"]]
    reference: int | None
    positions: Literal["answer", "question", "image", "all"]
    top: int
    by: Several[Literal["effect", "attention"]]
    listed: int


class PathKeywords(TypedDict, total=False):
    """Of `headpatch.path`."""

    top: int
    by: Several[Literal["effect", "attention"]]
    edges: Several[str]
    window: int


class CutKeywords(TypedDict, total=False):
    """Of `headpatch.cut`."""

    edges: Several[str]
    window: int
    layers: str | None
    heads: str | None
    controls: int
    itself: bool
    sink_dims: Several[int] | None
    sink_tau: float


class TraceKeywords(TypedDict, total=False):
    """Of `headpatch.trace`."""

    kinds: Several[Literal["zero", "mean", "resample", "scale"]]
    alpha: float
    directions: Several[Literal["noising", "denoising"]]
    reference: int | None
    answer: str | None
    tokens: int
    forced: Literal["with", "without", "both"]
    top: int
    noise: int


class RolloutKeywords(TypedDict, total=False):
    """Of `headpatch.rollout`."""

    answer: str | None
    tokens: int
    token: int
    forced: Literal["with", "without"]
    draws: int
    fill: Literal["other", "mean"]


class EvaluateKeywords(TypedDict, total=False):
    """Of `headpatch.evaluate`."""

    each: bool
    ranking: str | None
    verdict: str | None
    classes: Several[
        Literal[
            "necessary",
            "sufficient",
            "redundant",
            "inhibitory",
            "mixed",
            "watches",
            "looks away",
            "inert",
        ]
    ]
    kinds: Several[Literal["zero", "mean", "scale", "reweight", "resample"]]
    alpha: Several[float]
    toward: Literal["image", "region"]
    positions: Literal["answer", "question", "image", "all"]
    controls: int
    generate: int
    through: Literal["text", "prompt"]
    synonyms: str | None
    factor: str | None


class OpenPairsKeywords(TypedDict, total=False):
    """Of `headpatch.open_pairs`."""

    limit: int | None
    margin: float
    level: float
    resamples: int
    hold: float | None
    record: bool


class DrawPairsKeywords(TypedDict, total=False):
    """Of `headpatch.draw_pairs`."""

    regions: Several[str]
    wording: Several[str]
    size: int
    format: Literal["png", "jpg"]
    seed: int


class CorruptKeywords(TypedDict, total=False):
    """Of `headpatch.corrupt`."""

    question: str
    region: str
    seed: int


class CompareKeywords(TypedDict, total=False):
    """Of `headpatch.compare`."""

    format: Several[Literal["png", "pdf", "svg", "csv"]]
    width: float
    style: str | None
