"""The grammar of claims, and what tables made by hand say to each."""

import numpy as np
import pandas as pd
import pytest

from headpatch.errors import InputError
from headpatch.heads import Head
from headpatch.measures.claims import Claim, Evidence, judge_claim

DELTA = 0.02


def table() -> pd.DataFrame:
    """2 layers of 4 heads: each verdict's first, then inert ones."""
    rows = [
        # verdict, necessity, low, high, sufficiency, low, high, attention, low, high, rank
        ("necessary", 0.30, 0.20, 0.40, 0.00, -0.01, 0.01, 0.00, -0.01, 0.01, 5),
        ("redundant", 0.00, -0.01, 0.01, 0.40, 0.30, 0.50, 0.20, 0.10, 0.30, 2),
        ("inhibitory", -0.20, -0.30, -0.10, 0.00, -0.01, 0.01, -0.20, -0.30, -0.10, 8),
        ("watches", 0.00, -0.01, 0.01, 0.00, -0.01, 0.01, 0.50, 0.40, 0.60, 1),
        ("undecided", 0.05, -0.10, 0.20, 0.05, -0.10, 0.20, np.nan, np.nan, np.nan, 4),
        *[("inert", 0.00, -0.01, 0.01, 0.00, -0.01, 0.01, 0.0, -0.1, 0.1, rank)
          for rank in (3, 6, 7)],
    ]  # fmt: skip
    ends = [f"{name}{end}" for name in ("necessity", "sufficiency", "attention_diff")
            for end in ("", "_low", "_high")]  # fmt: skip
    found = pd.DataFrame(rows, columns=["verdict", *ends, "attention_rank"])
    found.insert(0, "layer", np.arange(8) // 4)
    found.insert(1, "head", np.arange(8) % 4)
    for name in ("necessity", "sufficiency", "attention_diff"):
        shown = (found[f"{name}_low"] > 0) | (found[f"{name}_high"] < 0)
        found[f"{name}_q"] = np.where(shown, 0.001, 0.8)
    found["equivalence_q"] = 0.01
    found["partners"] = ["", "1.3", *[""] * 6]
    return found


def evidence(vision: bool = True) -> Evidence:
    sets = pd.DataFrame({
        "heads": ["0.1+1.3", "0.0+0.2"], "joint": [0.5, 0.1], "joint_low": [0.4, 0.0],
        "joint_high": [0.6, 0.2], "excess": [0.5, 0.0], "excess_low": [0.4, -0.01],
        "excess_high": [0.6, 0.01], "q": [0.001, 0.9], "redundant": [True, False],
    })  # fmt: skip
    layers = pd.DataFrame({
        "layer": [0, 1, 2, 3], "necessity": [0.5, 0.1, 0.0, 0.0],
        "necessity_low": [0.4, -0.1, -0.01, 0.0], "necessity_high": [0.6, 0.3, 0.01, 0.0],
        "necessity_q": [0.001, 0.3, 0.9, 1.0],
    })  # fmt: skip
    return Evidence(table(), sets, DELTA, 0.95, top=2, vision=layers if vision else None)


@pytest.mark.parametrize(
    ("claim", "outcome"),
    [
        ("head 0.0 is necessary", "supported"),
        ("head 0.0 is sufficient", "contradicted"),
        ("head 0.0 is causal", "supported"),
        ("head 0.0 is inert", "contradicted"),
        ("head 0.0 is redundant", "contradicted"),
        ("head 0.0 is inhibitory", "contradicted"),
        ("head 0.1 is redundant", "supported"),
        ("head 0.1 is necessary", "contradicted"),
        ("head 0.1 is sufficient", "supported"),
        ("head 0.2 is inhibitory", "supported"),
        ("head 0.3 is causal", "contradicted"),
        ("head 0.3 is inert", "supported"),
        ("head 1.0 is necessary", "not testable"),
        ("head 1.0 is causal", "not testable"),
        ("head 1.0 is inert", "not testable"),
        ("head 1.0 is inhibitory", "not testable"),
        ("head 1.1 is redundant", "not testable"),
        ("head 0.3 looks at the region", "supported"),
        ("head 0.2 looks at the region", "contradicted"),
        ("head 0.0 looks at the region", "not testable"),
        ("head 1.0 looks at the region", "not testable"),
        ("heads 1.3 and 0.1 are redundant", "supported"),
        ("heads 0.0 and 0.2 are redundant", "contradicted"),
        ("heads 0.0 and 0.3 are redundant", "not testable"),
        ("layer 0 holds the causal heads", "not testable"),  # 3 of 3, but of 8 that is no proof
        ("layers 1 hold the sensitive heads", "contradicted"),
        ("vision layer 0 carries the object", "supported"),
        ("vision layers 0-1 carry the object", "not testable"),
        ("vision layers 0-2 carry the object", "not testable"),  # the stream may
        ("vision layer 3 carries the object", "contradicted"),  # not read
        ("the heads of vision layer 0 are necessary", "supported"),
        ("the heads of vision layers 0-1 are necessary", "not testable"),
        ("the heads of vision layers 0-2 are necessary", "contradicted"),
    ],
)
def test_each_claim_is_judged_by_what_is_shown(claim: str, outcome: str) -> None:
    found = judge_claim(Claim.parse(claim), evidence())
    assert found.outcome == outcome
    assert found.claim == claim
    assert found.figure


def test_the_figure_is_the_one_behind_the_outcome() -> None:
    found = judge_claim(Claim.parse("head 0.0 is necessary"), evidence())
    assert "necessity +0.300 (+0.200 to +0.400), q = 0.001" in found.figure
    found = judge_claim(Claim.parse("layer 0 holds the causal heads"), evidence())
    assert found.figure.startswith("3 of 3 lie in layers 0-0, which hold 4 of 8 heads")


def test_without_vision_layers_their_claims_are_not_testable() -> None:
    found = judge_claim(Claim.parse("vision layer 0 carries the object"), evidence(vision=False))
    assert found.outcome == "not testable" and "changed no vision layers" in found.figure


def test_the_grammar_forgives_capitals_spaces_and_a_full_stop() -> None:
    found = Claim.parse("  Head  24.17 is Necessary. ")
    assert (found.heads, found.word, found.form) == ((Head(24, 17),), "necessary", "class")
    assert Claim.parse("layers 17-26 hold the sensitive heads").layers == (17, 26)
    assert Claim.parse("vision layer 8 carries the object").layers == (8, 8)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "head 24.17 matters",
        "head 24 is necessary",
        "heads 1.1 and 1.1 are redundant",
        "layers 9-3 hold the causal heads",
        "head 24.17 is necessary and so on",
    ],
)
def test_what_is_no_claim_is_refused_with_examples(text: str) -> None:
    with pytest.raises(InputError, match="head 24.17 is necessary") as caught:  # noqa: RUF043
        Claim.parse(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("claim", "said"),
    [
        ("head 2.0 is causal", "2.0 is out of range; expected layers 0-1 and heads 0-3"),
        ("heads 0.1 and 0.4 are redundant", "0.4 is out of range"),
        ("layers 1-2 hold the causal heads", "layer 2 is out of range; expected layers 0-1"),
        ("vision layer 4 carries the object", "layer 4 is out of range; expected layers 0-3"),
    ],
)
def test_an_unknown_head_or_layer_is_named(claim: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        judge_claim(Claim.parse(claim), evidence())
    assert said in str(caught.value) and claim in str(caught.value)
