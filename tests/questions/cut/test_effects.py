"""`cut` finds what was planted (see `tests.planted`), and what a mask made by hand finds.

Worked out by hand, with n = 30 tokens or so, of which 16 are patches and 4 the region. A head
that loses the region gives its attention to what is left, by its odds: heads on the image read
nothing there, for ``found`` lies in the region. The blind writer, which saw the region alone,
then looks evenly at the n − 4 other tokens, 12 of which are patches: it writes 12/(n − 4) in both
runs.
"""

from functools import lru_cache
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import headpatch as hp
from headpatch.core import edge_cuts
from headpatch.core.edge_cuts import CutTable, Cutting, cost, cut_edges, make, prepare
from headpatch.core.session import Session, open_session
from headpatch.core.stream_swaps import end_positions
from headpatch.engine.patching import WITH, WITHOUT
from headpatch.heads import Head
from headpatch.stats.effects import spread
from tests.datasets import tiny_study
from tests.engine.oracle import Edges, Oracle
from tests.planted import HEADS, LAYERS, LD_WITH, LD_WITHOUT, planted, planted_study
from tests.tiny import QUESTION, SHAPES, tiny_vlm

CLOSE = 1e-4  # logits; what C = 10⁴ leaves of the norms, and float32
SPAN = LD_WITH - LD_WITHOUT
REGION = [0, 1, 4, 5]  # patches
WINDOWS: dict[str, Any] = {
    "window": 2,
    "edges": ("answer-region", "question-region"),
    "controls": 2,
}


def opened(**options: object) -> Session:
    with TemporaryDirectory() as folder:
        return open_session(planted_study(Path(folder), **options), planted().vlm, "question")


@lru_cache
def planted_session() -> Session:
    return opened()


@lru_cache
def _cut(options: tuple[tuple[str, Any], ...]) -> CutTable:
    return cut_edges(planted_session(), Cutting(**dict(options)))


def cut(**options: Any) -> CutTable:
    return _cut(tuple(options.items()))


def effect(heads: str, edge: str, run: str = "with", **options: Any) -> float:
    table = cut(heads=heads, edges=(edge,), **options).named
    return float(table[(table["run"] == run)]["effect"].iloc[-1])


def blind(session: Session) -> float:
    """What the blind writer writes without the region."""
    return 12 / (session.prompt.spans.length - 4)


def label(name: str) -> str:
    return str(HEADS[name].head)


@pytest.mark.parametrize(
    ("name", "edge", "expected"),
    [
        ("looker", "answer-region", -2),
        ("looker", "question-region", -2),
        ("looker", "answer-image", -2),
        ("looker", "answer-all", -2),
        ("looker", "answer-question", 0),
        ("looker", "answer-other", 8 / 3 * 45 / 48 - 2),  # 3 patches beside the object are left
        ("suppressor", "answer-region", 1),
        ("redundant a", "answer-region", 0),
        ("decoy", "answer-region", 0),
        ("decoy", "question-all", 0),
        ("faint", "answer-region", 0),
        ("note writer", "answer-region", 0),
        ("note writer", "question-region", -1),
        ("note reader", "answer-region", 0),
        ("pool writer", "question-region", 0),
        ("pool writer", "other-region", -1),
        ("pool writer", "image-region", -1),
        ("pool reader", "answer-region", 0),
    ],
)
def test_one_head(name: str, edge: str, expected: float) -> None:
    assert effect(label(name), edge) == pytest.approx(expected, abs=CLOSE)
    assert effect(label(name), edge, "without") == pytest.approx(0, abs=CLOSE)


@pytest.mark.parametrize(
    ("name", "edge"), [("note reader", "answer-question"), ("pool reader", "answer-other")]
)
def test_a_reader_cut_off_from_its_writer(name: str, edge: str) -> None:
    """It then looks evenly at what is left, where the writer, looking evenly, wrote a little.

    At token t, from the object on, the writer gives the object 1/(t + 1) of its attention.
    """
    session = planted_session()
    start, end = edge.split("-")
    queries, keys = (set(end_positions(session, one).tolist()) for one in (start, end))
    cut_off = keys - queries
    kept = [token for token in range(session.prompt.spans.length) if token not in cut_off]
    object_at = int(session.prompt.image_positions[5])
    left = sum(4 / 3 / (token + 1) for token in kept if token >= object_at) / len(kept)
    assert effect(label(name), edge) == pytest.approx(left - 1, abs=CLOSE)
    assert effect(label(name), edge, "without") == pytest.approx(0, abs=CLOSE)


def test_a_head_that_saw_nothing_else() -> None:
    session = planted_session()
    head = label("blind writer")
    assert effect(head, "answer-region") == pytest.approx(blind(session) - 2, abs=CLOSE)
    assert effect(head, "answer-region", "without") == pytest.approx(blind(session) - 1, abs=CLOSE)


def test_a_query_keeps_itself_unless_asked() -> None:
    """The blind writer's own token holds nothing to read; no key at all is z = 0."""
    head = label("blind writer")
    for itself in (False, True):
        assert effect(head, "answer-all", itself=itself) == pytest.approx(-2, abs=CLOSE)
        assert effect(head, "answer-all", "without", itself=itself) == pytest.approx(-1, abs=CLOSE)
    assert effect(label("pool reader"), "answer-answer", itself=True) == pytest.approx(0, abs=CLOSE)
    session, kept = planted_session(), cut(heads="3.0", edges=("all-answer",))
    assert kept.named["effect"].abs().max() <= 1e-5  # none but the answer sees the answer
    assert end_positions(session, "answer").tolist() == [session.prompt.spans.answer]


def test_heads_one_by_one_and_jointly() -> None:
    heads = f"{label('redundant a')},{label('redundant b')},{label('decoy')}"
    cuts = cut(heads=heads, edges=("answer-region",))
    table = cuts.named
    assert table["role"].tolist() == ["head"] * 6 + ["joint"] * 2
    by_run = table[table["run"] == "with"]
    assert by_run["effect"].tolist() == pytest.approx([0, 0, 0, -4], abs=CLOSE)
    assert by_run["normalized"].tolist() == pytest.approx([0, 0, 0, 4 / 8], abs=CLOSE)
    assert by_run["heads"].tolist() == ["0.3", "1.0", "1.2", "0.3+1.0+1.2"]
    assert by_run["layers"].tolist() == [""] * 4


def test_windows_over_the_layers() -> None:
    session, table = planted_session(), cut(**WINDOWS).named
    writes = blind(session)
    expected = {
        ("0", "answer-region"): writes - 2,
        ("0-1", "answer-region"): writes - 2 - 4 - 2 + 1,
        ("1-2", "answer-region"): -2 + 1,
        ("2-3", "answer-region"): 0,
        ("0", "question-region"): writes - 2 - 1,
        ("0-1", "question-region"): writes - 2 - 4 - 2 + 1 - 1,
        ("1-2", "question-region"): -2 + 1,
        ("2-3", "question-region"): 0,
    }
    effects = table.set_index(["run", "layers", "edge"])["effect"]
    assert effects["with"].to_dict() == pytest.approx(expected, abs=CLOSE)
    for (layers, edge), value in effects["without"].items():
        expected_there = writes - 1 if layers in ("0", "0-1") else 0
        assert value == pytest.approx(expected_there, abs=CLOSE), (layers, edge)
    assert set(table["role"]) == {"window"}
    assert table["centre"].drop_duplicates().tolist() == [0, 1, 2, 3]
    assert (table["heads"] == "").all()


def test_a_fixed_span_is_the_window_over_the_same_layers() -> None:
    windows = cut(**WINDOWS)
    fixed = cut(layers="1-2", edges=("answer-region", "question-region"), controls=2)
    same = windows.named[windows.named["layers"] == "1-2"]
    assert fixed.named["role"].tolist() == ["layers"] * 4
    for column in ("edge", "run", "effect", "control_mean"):
        expected = same[column].tolist()
        if column in ("effect", "control_mean"):
            expected = pytest.approx(expected, abs=1e-5)
        assert fixed.named[column].tolist() == expected


def test_all_heads_of_a_layer_are_the_layer() -> None:
    heads = cut(heads="layer:1", edges=("answer-region",))
    layer = cut(layers="1", edges=("answer-region",))
    joint = heads.named[heads.named["role"] == "joint"]
    assert joint["effect"].tolist() == pytest.approx(layer.named["effect"].tolist(), abs=1e-5)


def test_as_many_other_tokens_are_cut_as_a_control() -> None:
    """Any 4 of the 12 others: the looker's 45/60 on the object becomes 45/56."""
    cuts = cut(heads=label("looker"), edges=("answer-region", "answer-question"), controls=5)
    moved = 8 / 3 * 45 / 56 - 2
    region, question = cuts.named[cuts.named["run"] == "with"].to_dict("records")
    assert region["control_n"] == 5
    assert region["control_mean"] == pytest.approx(-moved / SPAN, abs=CLOSE / SPAN)
    assert region["control_sd"] == pytest.approx(0, abs=CLOSE / SPAN)
    assert question["control_n"] == 0
    assert np.isnan(question["control_mean"])
    drawn = cuts.table[cuts.table["role"] == "control"]
    assert len(drawn) == 2 * 5
    by_run = drawn[drawn["run"] == "with"]
    assert by_run["effect"].tolist() == pytest.approx([moved] * 5, abs=CLOSE)
    summary = spread(by_run["normalized"].tolist())
    assert region["control_mean"] == pytest.approx(summary.mean)


@pytest.mark.parametrize("name", ["plain", "grouped-query", "wide-heads", "class-token-kept"])
def test_the_table_equals_eager_transformers_with_a_mask(name: str) -> None:
    model = tiny_vlm(SHAPES[name])
    edges = ("answer-region", "question-region", "question-question", "image-region", "all-other")
    with TemporaryDirectory() as folder:
        session = open_session(tiny_study(Path(folder), question=QUESTION), model, "question")
    settings = Cutting(edges, window=2)
    assert prepare(session, settings).resumed
    cuts = cut_edges(session, settings)
    oracle, answers = Oracle(model), session.prompt.answers
    names = {end for edge in edges for end in edge.split("-")}
    ends = {end: end_positions(session, end).tolist() for end in names}

    def ld(run: int, blocked: list[Edges]) -> float:
        logits = oracle.logits(session.prompt.select(run).inputs, edges=blocked)[0]
        return float(logits[answers.yes] - logits[answers.no])

    untouched = [ld(WITH, []), ld(WITHOUT, [])]
    for row in cuts.named.to_dict("records"):
        run = WITH if row["run"] == "with" else WITHOUT
        start, end = row["edge"].split("-")
        first, _, last = row["layers"].partition("-")
        blocked = [
            Edges(Head(*place), [query], [key for key in ends[end] if key != query])
            for place in product(range(int(first), int(last or first) + 1), range(4))
            for query in ends[start]
            if ends[end] != [query]
        ]
        expected = ld(run, blocked)
        assert row["effect"] == pytest.approx(expected - untouched[run], abs=3e-5), row
        assert row["ld"] == pytest.approx(expected, abs=3e-5)
    assert cuts.named["effect"].abs().max() > 0.05


def test_cutting_nothing_changes_nothing() -> None:
    cuts = cut(**WINDOWS)
    nothing = cuts.table[cuts.table["role"] == "noise floor"]
    assert len(nothing) == 2 * LAYERS
    assert nothing["effect"].abs().max() <= 1e-5
    assert 0 <= cuts.noise_floor <= CLOSE


def test_cutting_what_a_query_cannot_see_changes_nothing() -> None:
    edges = ("image-question", "region-answer", "region-question")
    cuts = cut(layers="0-3", edges=edges)
    assert cuts.named["effect"].abs().max() <= 1e-5


def whole_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge_cuts, "disagreement", lambda *_: float("inf"))


def test_whole_passes_give_the_same_table(monkeypatch: pytest.MonkeyPatch) -> None:
    session, fast = planted_session(), cut(**WINDOWS).table
    assert prepare(session, Cutting(**WINDOWS)).resumed
    whole_passes(monkeypatch)
    assert not prepare(session, Cutting(**WINDOWS)).resumed
    slow = cut_edges(session, Cutting(**WINDOWS)).table
    columns = ["ld", "effect", "normalized", "control_mean"]
    np.testing.assert_allclose(slow[columns], fast[columns], atol=1e-4)
    rest = [name for name in slow if name not in (*columns, "control_sd")]
    pd.testing.assert_frame_equal(slow[rest], fast[rest])


def test_ld_effect_and_normalized_fit_together() -> None:
    cuts = cut(**WINDOWS)
    for row in cuts.table.to_dict("records"):
        base = row["ld_with"] if row["run"] == "with" else row["ld_without"]
        sign = -1 if row["run"] == "with" else 1
        assert row["ld"] - base == pytest.approx(row["effect"], abs=1e-6)
        span = row["ld_with"] - row["ld_without"]
        assert row["normalized"] == pytest.approx(sign * row["effect"] / span, abs=1e-6)


def test_the_summary_is_one_careful_sentence() -> None:
    words = hp.cut(planted_session(), **WINDOWS).summary
    assert "\n" not in words
    assert "Cutting question → region in layers 0-1, the largest of 8 cuts tried," in words
    assert "the answer becomes 'No'" in words
    assert words.endswith("One pair shows one case, not a rule.")
    nothing = hp.cut(planted_session(), heads=label("decoy"), edges=["answer-question"], controls=0)
    assert "noise floor" in nothing.summary or "+0.0%" in nothing.summary


def test_top_heads_are_those_of_the_ranking_that_is_given() -> None:
    settings = Cutting(("answer-region",), heads="top:2")
    ranking = lambda: (Head(1, 1), Head(1, 3), Head(0, 0))  # noqa: E731
    table = cut_edges(planted_session(), settings, ranking).named
    assert table["heads"].drop_duplicates().tolist() == ["1.1", "1.3", "1.1+1.3"]
    assert table["effect"].iloc[-2] == pytest.approx(-1, abs=CLOSE)


@pytest.mark.parametrize("resumed", [True, False])
@pytest.mark.parametrize("start", ["answer", "image"])
def test_the_price_is_the_tokens_that_the_layers_are_run_on(
    resumed: bool, start: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not resumed:
        whole_passes(monkeypatch)
    session = planted_session()
    job = prepare(session, Cutting((f"{start}-region",), window=2, controls=9))
    assert job.resumed is resumed
    tokens, layers = 0, session.vlm.lm.layers

    def count(_: Any, inputs: tuple[torch.Tensor, ...], __: Any) -> None:
        nonlocal tokens
        tokens += inputs[0].shape[0] * inputs[0].shape[1]

    handles = [layer.register_forward_hook(count) for layer in layers]
    make(session, job)
    for handle in handles:
        handle.remove()
    whole = len(layers) * session.prompt.spans.length
    assert cost(session, job) == pytest.approx(tokens / whole)
