"""Over which pairs a study is run, how they are drawn, and how heads are judged over them."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from headpatch.core.study.paths import PathText
from headpatch.core.study.strict import Corner, Count, Positive, Quadrant, Strict, sequence


class PairsOptions(Strict):
    """Over which pairs a study is run."""

    manifest: PathText | None = None
    """A dataset's table, or a folder with one; None runs the study's one pair."""
    limit: Positive | None = None
    """At most so many pairs of the dataset, drawn by the seed; None takes all."""
    margin: Annotated[float, Field(ge=0)] = 1.0
    """Logits by which LD_with and LD_without of a pair must lie apart."""
    level: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """Coverage of the intervals over pairs."""
    resamples: Annotated[int, Field(ge=100, le=1_000_000)] = 5000
    """Bootstrap draws of an interval."""


class DrawOptions(Strict):
    """How pairs are drawn."""

    n: Annotated[int, Field(ge=1, le=99_999)] = 200
    """Pairs."""
    regions: Annotated[
        tuple[Literal[Corner, "center", Quadrant], ...],
        BeforeValidator(sequence),
        Field(min_length=1),
    ] = ("top-left-corner", "top-right-corner", "bottom-left-corner", "bottom-right-corner")
    """Places asked about equally often; `top-left` is short for `top-left-corner`."""
    wording: Annotated[tuple[str, ...], BeforeValidator(sequence), Field(min_length=1)] = (
        "Is there anything {at}?",
    )
    """Used equally often; see `headpatch.pairs.generate.plan`."""
    size: Annotated[int, Field(ge=32, le=4096)] = 336
    """Width and height of the pictures, in pixels."""
    format: Literal["png", "jpg"] = "png"
    """Kind of picture file."""
    folder: PathText = "pairs"
    """Where `headpatch pairs` writes them."""


class VerdictOptions(Strict):
    """How heads are judged over many pairs."""

    split: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Share of the pairs on which heads are chosen; they are judged on the others."""
    delta: Annotated[float, Field(gt=0, lt=1)] = 0.02
    """Smallest effect of interest, as a share of the difference between the runs."""
    positions: Literal["answer", "question", "image", "all"] = "answer"
    """Where z is changed."""
    top: Positive = 20
    """Heads that attention picks out."""
    groups: Count = 200
    """Random sets of heads on each pair that chooses, which show what a head adds once others are
    gone; 0 seeks partners by the effects of heads alone."""
    partners: Count = 32
    """Heads among which redundant ones are sought: half of them add most once others are gone, half
    have the largest effects alone."""
    search: Count = 16
    """Pairs, of those that choose, on which sets of redundant heads are sought."""
    controls: Count = 40
    """Random sets of heads of the same layers, to compare the chosen set with."""
    noise: Positive = 8
    """Heads a pair and direction that are patched with their own z, for the noise floor."""
    nulls: Count = 16
    """Pairs asked about a wrong place and mirrored."""
    vision: Count = 12
    """Pairs on which all heads of each vision layer are resampled."""
    followed: Annotated[int, Field(ge=2, le=1_000_000)] = 20
    """Pairs, of those that judge, on which the study's claims are followed up where they need more
    than a verdict: attention that is cut, a stream that is swapped."""
    attribution: Count = 16
    """Pairs whose gradients rank the heads, for the faithfulness curves; 0 leaves that out."""
    random: Positive = 3
    """Random rankings beside the others in the faithfulness curves."""
