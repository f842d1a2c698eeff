"""Charts of the heads behind each token hold the tensors' numbers."""

import numpy as np
import pytest
import torch

from headpatch.present.canvas import Sheet
from headpatch.present.figure import draw
from headpatch.present.interactive import figures
from headpatch.questions.trace import charts
from headpatch.questions.trace.charts import HEADS, lead_effects, trace_chart

pytestmark = pytest.mark.filterwarnings("error")
LAYERS, PER_LAYER = 5, 6


def traced(tokens=("Yes", ",", "there", "\n"), forced=None, rivals=("No", "", "", "")):
    rng = np.random.default_rng(0)

    def values():
        return torch.tensor(rng.normal(size=(len(tokens), LAYERS, PER_LAYER))).float()

    ways = ("resample_noising", "resample_denoising")
    return {
        "tokens": list(tokens),
        "rivals": list(rivals),
        "forced": list(forced or ["with"] * len(tokens)),
        "with": values().sigmoid(),
        "without": values().sigmoid(),
        "effect_logit": {way: values() for way in ways},
        "effect_contrast": {
            way: torch.where(
                torch.tensor([bool(one) for one in rivals])[:, None, None], values(), torch.nan
            )
            for way in ways
        },
    }


def parts(results):
    looking, moving, *maps = trace_chart(results).panels
    return looking, moving, maps


def test_no_two_lines_of_the_legend_look_alike():
    looking, moving, _ = parts(traced())
    looks = [one.style for one in (*looking.series, *moving.series)]
    assert len({(one.color, one.marker, one.hollow) for one in looks}) == 6 == len(looks)


def test_a_trace_has_a_place_for_every_token():
    """A line is parted where another answer begins."""
    results = traced(forced=["with", "with", "without", "without"])
    looking, moving, maps = parts(results)
    assert maps[-1].x_names == ["Yes\n(No)", ",", "there", "\\n"]
    shares = results["with"].reshape(4, -1)
    highest, mean = looking.series[:2]
    np.testing.assert_allclose(np.delete(highest.y, 2), shares.max(1).values, rtol=1e-6)
    np.testing.assert_allclose(np.delete(mean.y, 2), shares.mean(1), rtol=1e-6)
    assert np.isnan(highest.y[2])
    assert [one.at for one in looking.guides] == [1.5]
    effects = lead_effects(results)
    for series, values in zip(moving.series, effects.values(), strict=True):
        np.testing.assert_allclose(np.delete(series.y, 2), np.abs(values).sum((1, 2)), rtol=1e-6)
    for one, values in zip(maps, effects.values(), strict=True):
        assert one.values.shape == (HEADS, 4)
        for name, row in zip(one.y_names, one.values, strict=True):
            layer, head = map(int, name.split("."))
            np.testing.assert_allclose(row, values[:, layer, head])


def test_the_contrast_leads_where_there_is_a_rival():
    results = traced()
    lead = lead_effects(results)["resample_noising"]
    contrast, logit = (
        results[f"effect_{name}"]["resample_noising"] for name in ("contrast", "logit")
    )
    np.testing.assert_allclose(lead[0], contrast[0])
    np.testing.assert_allclose(lead[1:], logit[1:])


def test_a_trace_without_attention_or_with_one_direction():
    results = traced()
    results["with"] = results["without"] = torch.full_like(results["with"], torch.nan)
    for name in ("effect_logit", "effect_contrast"):
        del results[name]["resample_denoising"]
    looking, _, maps = parts(results)
    assert not looking.series
    assert len(maps) == 1
    with pytest.raises(ValueError, match="no effects"):
        trace_chart({**results, "effect_logit": {}})


def mean_traced(slots=3, pairs=(4, 4, 1)):
    """Means over 4 pairs of a slot that all have, one where few have a rival, and one pair's."""
    results = traced(tokens=("Yes", "ring/square", "big")[:slots], rivals=("No", "", "")[:slots])
    ways = list(results["effect_logit"])
    few = torch.tensor([count < 2 for count in pairs])

    def ends(mean, reach):
        gone = few.reshape(-1, *[1] * (mean.ndim - 1)).expand_as(mean)
        return {"low": torch.where(gone, torch.nan, mean - reach),
                "high": torch.where(gone, torch.nan, mean + reach)}  # fmt: skip

    lead = {way: torch.tensor(values) for way, values in lead_effects(results).items()}
    total = {way: values.abs().sum((1, 2)) for way, values in lead.items()}
    diff = results["with"] - results["without"]
    return results | {
        "pairs": torch.tensor(pairs),
        "pair_names": ["a", "b", "c", "d"],
        "level": 0.9,
        "diff": diff,
        **{f"diff_{end}": values for end, values in ends(diff, 0.1).items()},
        "total": total,
        **{
            f"{name}_{end}": {way: ends(values[way], 1.0)[end] for way in ways}
            for name, values in (("effect", lead), ("total", total))
            for end in ("low", "high")
        },
    }


def test_means_over_pairs_have_intervals_where_two_pairs_have_the_token():
    results = mean_traced()
    looking, moving, maps = parts(results)
    assert maps[-1].x_names == ["Yes\n(No)", "ring/square", "big\nn=1"]
    diff = results["diff"].reshape(3, -1)
    (line,) = looking.series
    np.testing.assert_allclose(line.y, diff.max(1).values, rtol=1e-6)
    assert line.texts == ["{}.{}".format(*divmod(int(flat), PER_LAYER)) for flat in diff.argmax(1)]
    reach = np.array([0.1, 0.1, np.nan])
    np.testing.assert_allclose(line.high - line.y, reach, rtol=1e-5)
    np.testing.assert_allclose(line.y - line.low, reach, rtol=1e-5)
    for series, total in zip(moving.series, results["total"].values(), strict=True):
        np.testing.assert_allclose(series.y, total, rtol=1e-6)
    assert "90% intervals over pairs" in trace_chart(results).note


def test_a_dot_marks_an_effect_whose_interval_excludes_0():
    for one in parts(mean_traced())[2]:
        beyond = np.abs(one.values) > 1
        beyond[:, 2] = False  # one pair has no interval
        (dots,) = one.cells
        marked = np.zeros_like(beyond)
        marked[dots.rows, dots.columns] = True
        np.testing.assert_array_equal(marked, beyond)


def test_tokens_that_few_pairs_have_are_left_out_of_a_full_figure(monkeypatch):
    monkeypatch.setattr(charts, "SLOTS", 2)
    chart = trace_chart(mean_traced())
    assert len(chart.panels[3].x_names) == 2
    assert "Left out: the tokens that fewest pairs have (1)." in chart.note


@pytest.mark.parametrize("results", [traced(), mean_traced()], ids=["one", "many"])
def test_a_trace_can_be_drawn_and_shown(results):
    chart = trace_chart(results)
    draw(chart, Sheet(), "Is it $5?", "top-left")
    labels = [one.label for one in figures(chart).values()]
    assert all("Largest: head " in one for one in labels[2:])
