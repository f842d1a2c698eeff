"""The grammar of claims, and what tables made by hand say to each."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from headpatch.core.claims_grammar import Claim, Form
from headpatch.core.saved_verdict import SavedVerdict
from headpatch.core.study.study import Study
from headpatch.errors import InputError
from headpatch.heads import Grid, Head
from headpatch.questions.claims.case import Evidence
from headpatch.questions.claims.experiments import Measured
from headpatch.questions.claims.judge import judge_claim

STUDY = Study.make(None, {"verdict.delta": 0.02, "verdict.top": 2, "pairs.resamples": 400})


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
          for rank in (3, 6, 7)]
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
        "excess_high": [0.6, 0.01], "q": [0.001, 0.9], "redundant": [True, False]
    })  # fmt: skip
    layers = pd.DataFrame({
        "layer": [0, 1, 2, 3], "necessity": [0.5, 0.1, 0.0, 0.0],
        "necessity_low": [0.4, -0.1, -0.01, 0.0], "necessity_high": [0.6, 0.3, 0.01, 0.0],
        "necessity_q": [0.001, 0.3, 0.9, 1.0]
    })  # fmt: skip
    saved = SavedVerdict(
        STUDY, table(), sets, gate=pd.DataFrame(), looks=np.linspace(0.05, 0.15, 20),
        vision=layers if vision else None, entries=(), run={},
        correlation={"rho": 0.4, "low": 0.2, "high": 0.6, "untold": ""}
    )  # fmt: skip
    return Evidence(saved, measured())


def with_heads(heads: pd.DataFrame) -> Evidence:
    saved = replace(evidence().verdict, heads=heads, looks=None, vision=None)
    return Evidence(saved, {})


def measured() -> dict[str, Measured]:
    def about(mean: float, width: float = 0.02) -> np.ndarray:
        return mean + np.linspace(-width, width, 20)

    spans = "all heads of vision {} changed, and of as many other layers"
    swapped = "the region's patches swapped, leaving vision layer"
    cut = "to region cut in layer"
    figures: dict[str, dict[str, np.ndarray]] = {
        f"{swapped} 1": {"sufficiency": about(0.9)},
        f"{swapped} 2": {"sufficiency": about(0.5, 0.4)},
        f"{swapped} 3": {"sufficiency": about(0.0, 0.0)},  # not read
        f"{swapped} 0": {"sufficiency": about(0.1)},
        spans.format("layer 0"): {"necessity": about(0.3), "elsewhere": about(0.1)},
        spans.format("layer 1"): {"necessity": about(0.3), "elsewhere": about(0.3)},
        spans.format("layer 2"): dict.fromkeys(("necessity", "elsewhere"), about(0.0, 0.001)),
        spans.format("layers 0-2"): {"necessity": about(0.3)},
        f"answer {cut}s 0-1": {"region": about(0.3), "elsewhere": about(0.02)},
        f"answer {cut} 0": {"region": about(0.3), "elsewhere": about(0.3, 0.1)},
        f"answer {cut} 1": {"region": about(0.0), "elsewhere": about(0.0)},
        f"words {cut} 1": {"region": about(0.3)},  # no room for as many elsewhere
        "all heads of vision layer 0 changed": {"necessity": about(0.3)},
        "heads 0.3+1.0 changed together": {"joint": about(0.3), "excess": about(0.2)},
        "heads 1.1+1.2 changed together": {"joint": about(0.3), "excess": about(0.0)},
        "heads 0.0+1.2 changed together": {"joint": about(0.5), "excess": about(0.2)},
        "answer to image cut in layer 0": {"image": about(0.3)},
        "words to image cut in layer 0": {"image": about(0.0)},
        "answer to words cut in layer 0": {"words": about(0.02, 0.1)},
    }
    joint = "heads {} changed both ways, together, and as many others of their layers"
    spans = "all heads of {} changed, and of as many other layers"
    for names, own in {
        "0.0+1.0": {"necessity": 0.3, "sufficiency": 0.0, "elsewhere": 0.1},
        "0.1+1.0": {"necessity": 0.0, "sufficiency": 0.3, "elsewhere": -0.1},
        "0.1+1.1": {"necessity": 0.3, "sufficiency": 0.3, "elsewhere": 0.3},
        "0.2+1.0": {"necessity": 0.3, "sufficiency": 0.3},  # no others are left
    }.items():
        figures[joint.format(names)] = {name: about(value) for name, value in own.items()}
    figures[spans.format("layer 0")] = {"necessity": about(0.3), "elsewhere": about(0.1)}
    figures[spans.format("layer 1")] = {"necessity": about(0.1), "elsewhere": about(0.3)}
    figures[spans.format("layers 0-1")] = {"necessity": about(0.4)}
    for names, noising, denoising in (
        ("0.0+1.0", (0.5, 0.5, 0.5), (0.5, 0.0, 0.0)),  # both are needed
        ("0.0+1.1", (0.5, 0.0, 0.0), (0.5, 0.5, 0.5)),  # either would do
        ("0.0+1.2", (0.5, 0.2, 0.3), (0.5, 0.2, 0.3)),  # added up
        ("0.0+1.3", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),  # in series
        ("0.1+1.0", (0.5, 0.5, 0.5), (0.5, 0.2, 0.3)),  # both are needed, one way
        ("0.1+1.1", (0.2, 0.5, -0.2), (0.3, 0.5, -0.2)),  # against each other
    ):
        figures[f"heads {names} changed both ways, together and alone"] = {
            f"{way} {name}": about(value)
            for way, values in (("noising", noising), ("denoising", denoising))
            for name, value in zip(("both", *names.split("+")), values, strict=True)
        }
    return {name: Measured(each) for name, each in figures.items()} | {
        f"words {cut} 0": Measured({}, "no image among the prompt's tokens"),
        "all heads of vision layer 1 changed": Measured({}, "one row for several pictures"),
    }


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
        ("head 0.1 is causal", "supported"),
        ("head 0.2 is causal", "supported"),  # it acts, but against the answer
        ("head 0.2 is inert", "contradicted"),
        ("head 0.3 is causal", "contradicted"),
        ("head 0.3 is inert", "supported"),
        ("head 1.0 is necessary", "undecided"),
        ("head 1.0 is causal", "undecided"),
        ("head 1.0 is inert", "undecided"),
        ("head 1.0 is inhibitory", "undecided"),
        ("head 1.1 is redundant", "undecided"),
        ("head 0.3 looks at the region", "supported"),
        ("head 0.2 looks at the region", "contradicted"),
        ("head 0.0 looks at the region", "contradicted"),
        ("head 1.0 looks at the region", "not testable"),
        ("heads 1.3 and 0.1 are redundant", "supported"),
        ("heads 0.0 and 0.2 are redundant", "contradicted"),
        ("heads 0.3 and 1.2 are redundant", "not testable"),
        ("heads 0.3 and 1.0 are redundant", "supported"),  # beside the verdict
        ("heads 1.1 and 1.2 are redundant", "contradicted"),
        ("heads 0.0 and 1.2 are redundant", "contradicted"),  # 0.0 is necessary alone
        ("heads 0.0 and 1.2 do more together than alone", "supported"),
        ("heads 1.3 and 0.1 do more together than alone", "supported"),
        ("heads 1.1 and 1.2 do more together than alone", "contradicted"),
        ("heads 0.0 and 1.0 work together", "supported"),
        ("heads 1.0 and 0.0 are independent", "contradicted"),
        ("heads 0.0 and 1.1 work together", "contradicted"),
        ("heads 0.0 and 1.1 are independent", "contradicted"),
        ("heads 0.0 and 1.2 work together", "contradicted"),
        ("heads 0.0 and 1.2 are independent", "supported"),
        ("heads 0.0 and 1.3 work together", "undecided"),  # or the same thing twice
        ("heads 0.1 and 1.0 work together", "supported"),
        ("heads 0.1 and 1.1 work together", "contradicted"),
        ("heads 0.1 and 1.2 work together", "not testable"),  # not changed
        ("the model looks at the region", "supported"),
        ("the answer reads the region in layers 0-1", "supported"),
        ("the answer reads the region in layer 0", "undecided"),  # no more than elsewhere
        ("the answer reads the region in layer 1", "contradicted"),
        ("the question reads the region in layer 1", "supported"),
        ("the question reads the region in layer 0", "not testable"),
        ("the question reads the region in layers 0-1", "not testable"),
        ("layer 0 holds the causal heads", "undecided"),  # 3 of 3, but of 8 that is no proof
        ("layers 1 hold the sensitive heads", "undecided"),  # 0 of 2 is no proof either
        ("vision layer 0 carries the object", "contradicted"),
        ("vision layers 0-1 carry the object", "not testable"),  # nothing lies before layer 0
        ("vision layer 1 carries the object", "supported"),  # not there before
        ("vision layers 1-2 carry the object", "undecided"),  # about half
        ("vision layer 2 carries the object", "not testable"),
        ("vision layers 1-3 carry the object", "contradicted"),
        ("vision layer 3 carries the object", "contradicted"),
        ("the heads of vision layer 0 matter more than those of other layers", "supported"),
        ("the heads of vision layer 1 matter more than those of other layers", "contradicted"),
        ("the heads of vision layer 2 matter more than those of other layers", "contradicted"),
        ("the heads of vision layers 0-2 matter more than those of other layers", "not testable"),
        ("the heads of vision layers 1-2 matter more than those of other layers", "not testable"),
        ("the heads of vision layer 0 are necessary", "supported"),
        ("the heads of vision layers 0-1 are necessary", "undecided"),
        ("the heads of vision layers 0-2 are necessary", "contradicted"),
        ("heads 0.0 and 1.0 are necessary together", "supported"),
        ("heads 0.0 and 1.0 are sufficient together", "contradicted"),
        ("heads 0.1 and 1.0 are sufficient together", "supported"),
        ("heads 0.0 and 1.2 are necessary together", "not testable"),  # not changed
        ("heads 0.0 and 1.0 matter more than others of their layers", "supported"),
        ("heads 0.1 and 1.0 matter more than others of their layers", "contradicted"),  # nothing
        ("heads 0.1 and 1.1 matter more than others of their layers", "contradicted"),  # no more
        ("heads 0.2 and 1.0 matter more than others of their layers", "not testable"),
        ("the heads of layer 0 matter more than those of other layers", "supported"),
        ("the heads of layer 1 matter more than those of other layers", "contradicted"),
        ("the heads of layers 0-1 matter more than those of other layers", "not testable"),
        ("the answer reads the image in layer 0", "supported"),
        ("the question reads the image in layer 0", "contradicted"),
        ("the answer reads the question in layer 0", "undecided"),
        ("attention and effects correlate by more than 0.1", "supported"),
        ("attention and effects correlate by more than 0.7", "contradicted"),
        ("attention and effects correlate by less than 0.7", "supported"),
        ("attention and effects correlate by less than .1", "contradicted"),
        ("attention and effects correlate by less than 0.5", "undecided"),
    ],
)
def test_each_claim_is_judged_by_what_is_shown(claim: str, outcome: str) -> None:
    found = judge_claim(Claim.parse(claim), evidence())
    assert (found.claim, found.outcome) == (claim, outcome)
    assert found.figure


@pytest.mark.parametrize(
    ("claim", "said"),
    [
        ("head 0.0 is necessary", "necessity +0.300 (+0.200 to +0.400), q = 0.001"),
        ("head 1.0 is causal", "more pairs are needed"),
        ("head 1.1 is redundant", "no set of heads was found"),
        ("heads 0.3 and 1.2 are redundant", "0.3+1.2: they were not changed together"),
        ("the question reads the region in layers 0-1", "attention was not cut there"),
        ("layer 0 holds the causal heads", "3 of 3 lie in layers 0-0, which hold 4 of 8 heads"),
        ("layer 0 holds the causal heads", "by chance"),
        ("vision layers 0-1 carry the object", "nothing lies before layer 0"),
        ("the heads of vision layers 0-2 matter more than those of other layers",
         "no other layers"),
        ("layer 1 holds the sensitive heads", "too few heads"),
        ("heads 0.0 and 1.2 are redundant", "necessary alone: 0.0"),
        ("heads 0.0 and 1.3 work together", "in series"),
        ("head 0.2 is causal", "acts against the answer")
    ]
)  # fmt: skip
def test_the_figure_behind_and_what_is_open_or_missing_is_said(claim: str, said: str) -> None:
    assert said in judge_claim(Claim.parse(claim), evidence()).figure


def test_a_verdict_without_vision_layers_is_filled_from_what_was_measured_beside_it() -> None:
    zero, one, two = (
        judge_claim(
            Claim.parse(f"the heads of vision layer {layer} are necessary"), evidence(False)
        )
        for layer in range(3)
    )
    assert zero.outcome == "supported"
    assert (one.outcome, one.figure) == ("not testable", "one row for several pictures")
    assert (two.outcome, two.figure) == ("not testable", "no vision layer was changed")


def test_a_correlation_that_cannot_be_told_is_not_testable_and_many_claims_widen_it() -> None:
    claim = Claim.parse("attention and effects correlate by more than 0.15")
    assert judge_claim(claim, evidence()).outcome == "supported"
    many = replace(evidence(), claims=40)
    assert judge_claim(claim, many).outcome == "undecided"
    untold = {"untold": "as there are fewer than 64 heads"}
    for correlation, said in ((untold, "fewer than 64"), (None, "verdict.pt")):
        of = Evidence(replace(evidence().verdict, correlation=correlation), {})
        found = judge_claim(claim, of)
        assert found.outcome == "not testable" and said in found.figure


def test_without_each_pairs_attention_it_is_said() -> None:
    found = judge_claim(Claim.parse("the model looks at the region"), with_heads(table()))
    assert found.outcome == "not testable" and "verdict.pt" in found.figure


@pytest.mark.parametrize(
    ("claim", "wanted"),
    [
        ("head 0.0 is necessary", []),
        ("heads 0.1 and 1.3 are redundant", []),
        ("heads 0.3 and 1.0 are redundant", []),
        ("heads 0.3, 1.0 and 1.1 are redundant", ["heads 0.3+1.0+1.1 changed together"]),
        ("the heads of vision layers 0-1 are necessary", []),
        ("vision layer 1 carries the object", []),
        ("the answer reads the region in layer 0", []),
        ("the question reads the region in layers 0-1", ["words to region cut in layers 0-1"]),
        ("heads 1.0 and 0.0 work together", []),
        ("heads 1.2 and 0.1 are independent",
         ["heads 0.1+1.2 changed both ways, together and alone"]),
        ("heads 0.3, 1.0 and 1.1 do more together than alone",
         ["heads 0.3+1.0+1.1 changed together"]),
        ("heads 0.0 and 1.0 are necessary together", []),
        ("heads 1.2, 0.0 and 1.0 matter more than others of their layers",
         ["heads 0.0+1.0+1.2 changed both ways, together, and as many others of their layers"]),
        ("the heads of layers 0-1 matter more than those of other layers", []),
        ("the answer reads the image in layer 1", ["answer to image cut in layer 1"]),
        ("attention and effects correlate by more than 0.1", []),
    ],
)  # fmt: skip
def test_what_a_claim_needs_that_is_not_there_is_asked_for(claim: str, wanted: list[str]) -> None:
    assert [one.name for one in evidence().missing(Claim.parse(claim))] == wanted


def test_the_grammar_forgives_capitals_spaces_and_a_full_stop() -> None:
    found = Claim.parse("  Head  24.17 is Necessary. ")
    assert (found.heads, found.word, found.form) == ((Head(24, 17),), "necessary", Form.CLASS)
    assert Claim.parse("layers 17-26 hold the sensitive heads").layers == (17, 26)
    assert Claim.parse("vision layer 8 carries the object").layers == (8, 8)
    three = Claim.parse("heads 1.2, 3.4 and 0.17 are redundant")
    assert (three.form, three.heads) == (Form.REDUNDANT, (Head(1, 2), Head(3, 4), Head(0, 17)))
    more = Claim.parse("heads 1.2, 3.4 and 0.17 do more together than alone")
    assert (more.form, more.heads) == (Form.MORE_TOGETHER, three.heads)
    assert Claim.parse("heads 1.2 and 3.4 work together").form is Form.WORK_TOGETHER
    span = Claim.parse("the heads of vision layers 8-9 matter more than those of other layers")
    assert (span.form, span.layers) == (Form.VISION_SPAN, (8, 9))
    reads = Claim.parse("The question reads the region in layers 3-5")
    assert (reads.word, reads.object, reads.layers) == ("question", "region", (3, 5))
    rho = Claim.parse("Attention and effects correlate by less than .25")
    assert (rho.form, rho.word, rho.number, rho.heads) == (Form.CORRELATE, "less", 0.25, ())
    set_of = Claim.parse("heads 1.2, 3.4 and 0.17 are sufficient together")
    assert (set_of.form, set_of.word, set_of.heads) == (Form.TOGETHER, "sufficient", three.heads)


@pytest.mark.parametrize("text", [
    "the question reads the question in layer 1", "the image reads the region in layer 1",
    "attention and effects correlate by more than 1.5", "head 1.1 is necessary together",
    "", "head 24.17 matters", "head 24 is necessary", "heads 1.1 and 1.1 are redundant",
    "layers 9-3 hold the causal heads", "head 24.17 is necessary and so on",
    "heads 1.1, 1.2 are redundant", "heads 1.1, 1.2 and 1.3 work together",
    "the picture reads the region in layer 1",
])  # fmt: skip
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
        Claim.parse(claim).check(Grid(2, 4), vision_layers=4)
    assert said in str(caught.value) and claim in str(caught.value)


def test_a_claim_that_is_contradicted_by_where_heads_lie_takes_enough_of_them() -> None:
    """0 of 6 lie there: were it half of such heads, p = 1/64."""
    verdicts = ["necessary"] * 6 + ["inert"] * 2
    places = {"layer": [0, 0, 0, 0, 0, 0, 1, 1], "head": [0, 1, 2, 3, 4, 5, 0, 1]}
    heads = table().assign(verdict=verdicts, **places)
    found = judge_claim(Claim.parse("layer 1 holds the causal heads"), with_heads(heads))
    assert found.outcome == "contradicted"
    seen = with_heads(heads.assign(verdict="inert"))
    found = judge_claim(Claim.parse("layer 0 holds the causal heads"), seen)
    figure = "no head is shown to act on the answer"
    assert (found.outcome, found.figure) == ("not testable", figure)


def test_intervals_are_wider_the_more_claims_are_judged() -> None:
    """Of 40 claims each is judged at 1 - 0.05/40: 3.2 standard errors instead of 1.96."""
    one = evidence()
    many = replace(one, claims=40)
    first, corrected = (each.row(Head(0, 0)) for each in (one, many))
    assert corrected["necessity"] == first["necessity"]
    wider = (corrected["necessity_high"] - 0.3) / (first["necessity_high"] - 0.3)
    assert wider == pytest.approx(3.227 / 1.960, rel=1e-3)
    claim = Claim.parse("head 0.3 looks at the region")
    assert [judge_claim(claim, each).outcome for each in (one, many)] == ["supported", "supported"]
    claim = Claim.parse("head 0.1 looks at the region")  # 0.2, from 0.1 on
    assert [judge_claim(claim, each).outcome for each in (one, many)] == ["supported", "undecided"]


def test_a_difference_of_next_to_no_attention_is_no_look() -> None:
    """However many pairs show that it is not 0; nor a large share of next to none."""
    tiny = table().assign(attention_diff=1e-5, attention_diff_low=9e-6, attention_diff_high=2e-5)
    tiny["attention_diff_q"] = 1e-9
    claim = Claim.parse("head 0.0 looks at the region")
    assert judge_claim(claim, with_heads(tiny)).outcome == "contradicted"
    faint = table().assign(
        attention_raw_diff=1e-4, attention_raw_diff_low=9e-5, attention_raw_diff_high=2e-4
    )
    found = judge_claim(Claim.parse("head 0.3 looks at the region"), with_heads(faint))
    assert found.outcome == "contradicted" and "+0.0001" in found.figure
