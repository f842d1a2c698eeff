"""Words, tables and charts of a trace say what its tensors hold, and no more than pairs show."""

import numpy as np
import pytest
import torch
from rich.console import Console

from headpatch.core.question import Context
from headpatch.present.canvas import Sheet
from headpatch.present.figure import draw
from headpatch.present.interactive import figures
from headpatch.present.parts import Grid, Words
from headpatch.present.tables import renderables
from headpatch.questions.trace import charts
from headpatch.questions.trace.charts import HEADS, lead_effects, trace_chart
from headpatch.questions.trace.records import MEASURES, records
from headpatch.questions.trace.view import summary, view

pytestmark = pytest.mark.filterwarnings("error")
ONE, MANY = Context("Q?", "top-left"), Context("Q?", "top-left", pairs=4)


def traced(tokens, rivals, effects, present, forced=None):
    """One pair's: lead effects by way, `[tokens, layers, heads]`, and attention with the object."""
    count = len(tokens)
    contested = torch.tensor([bool(rival) for rival in rivals])[:, None, None]
    absent = present.flip(2) / 2
    return {
        "tokens": list(tokens),
        "forced": list(forced or ["with"] * count),
        "index": torch.arange(count),
        "rivals": list(rivals),
        "measures": ["contrast" if rival else "logit" for rival in rivals],
        "says_with": list(tokens),
        "says_without": list(tokens),
        "with": present,
        "without": absent,
        "diff": present - absent,
        "contrast_floor": torch.full((count,), 1e-6),
        "logit_floor": torch.full((count,), 1e-6),
        **{
            f"{name}_{run}": torch.full((count,), value)
            for name in MEASURES
            for run, value in (("with", 4.0), ("without", -4.0))
        },
        "effect_contrast": {w: torch.where(contested, v, torch.nan) for w, v in effects.items()},
        "effect_logit": {w: torch.where(contested, v / 2, v) for w, v in effects.items()},
        "effect_logprob": effects,
    }


def over_pairs(held, pairs):
    """The same as means over 4 pairs, so many of which have each slot; intervals take two."""
    few = torch.tensor([count < 2 for count in pairs])
    lead = {way: torch.tensor(values).float() for way, values in lead_effects(held).items()}

    def ends(mean, reach):
        gone = few.reshape(-1, *[1] * (mean.ndim - 1)).expand_as(mean)
        return {end: torch.where(gone, torch.nan, mean + sign * reach)
                for end, sign in (("low", -1), ("high", 1))}  # fmt: skip

    total = {way: values.abs().sum((1, 2)) for way, values in lead.items()}
    return held | {
        "texts": [dict.fromkeys(token.split("/"), 1) for token in held["tokens"]],
        "pairs": torch.tensor(pairs),
        "measure_pairs": torch.tensor([*pairs[:1], *(max(count - 1, 1) for count in pairs[1:])]),
        "floor": torch.full((len(pairs),), 1e-6),
        "pair_names": list("abcd"),
        "level": 0.9,
        "total": total,
        **{f"diff_{end}": one for end, one in ends(held["diff"], 0.1).items()},
        **{
            f"{name}_{end}": {way: ends(one, reach)[end] for way, one in values.items()}
            for name, values, reach in (("effect", lead, 1.0), ("total", total, 0.0))
            for end in ("low", "high")
        },
    }


def lone(effects, rivals, tokens=("Yes", "[,]")):
    """Head 1.2 alone does something, and 0.1 alone looks."""
    maps, looks = torch.zeros(2, len(tokens), 2, 3)
    maps[:, 1, 2], looks[:, 0, 1] = torch.tensor(effects), 0.5
    return traced(tokens, rivals, {"resample_noising": maps}, looks)


def lone_over_pairs():
    """A slot that all of 4 pairs have, one where a pair has no rival, and one pair's own."""
    tokens, rivals = ("Yes", "top/bottom", "big"), ("No", "left", "red")
    return over_pairs(lone([-2.0, 0.5, 9.0], rivals, tokens), [4, 4, 1])


def noisy(tokens=("Yes", ",", "there", "\n"), rivals=("No", "", "", ""), forced=None):
    """Every one of 5 × 6 heads does something."""
    values = torch.tensor(np.random.default_rng(0).normal(size=(3, len(tokens), 5, 6))).float()
    effects = dict(zip(("resample_noising", "resample_denoising"), values, strict=False))
    return traced(tokens, rivals, effects, values[2].sigmoid(), forced)


def noisy_over_pairs():
    return over_pairs(noisy(("Yes", "ring/square", "big"), ("No", "", "")), [4, 4, 1])


# Words and tables


def parts(held, context=ONE):
    return list(view({"trace.pt": held}, context))


def printed(held, context=ONE):
    console = Console(width=200)
    with console.capture() as capture:
        console.print(*renderables(parts(held, context)))
    return capture.get()


def test_a_row_a_token():
    held = lone([-2.0, 1e-7], ["No", ""])
    text = printed(held)
    assert "The with-run's answer, token by token" in text
    yes, comma = (line for line in text.splitlines() if "0.1 +0.25" in line)
    assert yes.split() == ["Yes", "No", "+4.00", "-4.00", "0.1", "+0.25", "1.2", "-2.00"]
    assert comma.split() == ["[,]", "(4.00)", "(-4.00)", "0.1", "+0.25", "1.2", "(+1e-07)"]
    words = " ".join(text.split())
    assert (
        "Considering only the 1 of 2 tokens that one of the runs would not say itself: resample, "
        "noising: heads move 'Yes' most"
    ) in words
    assert words.count("One pair shows one case, not a rule.") == 1
    assert "INVALID" in printed(held, Context(valid=False))


def test_a_page_has_the_token_s_own_logits_too():
    (table,) = (
        part for part in parts(lone([-2.0, 1e-7], ["No", ""]))
        if isinstance(part, Grid) and part.place == "page"
    )  # fmt: skip
    row = dict(zip(table.headings, table.rows[0], strict=True))
    assert (row["logit with"], row["logit without"]) == ("+4.00", "-4.00")
    assert row["resample, noising"].startswith("1.2 -2.00, ")


def test_means_have_intervals_where_two_pairs_have_the_token():
    held = lone_over_pairs()
    text = printed(held, MANY)
    yes, place, big = (line for line in text.splitlines() if "0.1 +0.25" in line)
    assert yes.split()[:3] == ["Yes", "No", "4"]
    assert yes.rstrip().endswith("1.2 -2.00 [-3.00, -1.00]")
    assert place.split()[2] == "4/3"
    assert big.rstrip().endswith("1.2 +9.00")
    words = " ".join(text.split())
    assert "95% intervals over pairs" in words
    assert "partly lucky" in words
    line = summary(records(held, 3), MANY)
    assert "heads move 'Yes' most" in line  # not 'big', which one pair has
    assert line.endswith("Means over 4 pairs.")


def test_both_answers_have_a_table_each():
    held = lone([-2.0, 1.0], ["No", "Yes"], ("Yes", "No")) | {"forced": ["with", "without"]}
    titles = [part.title for part in parts(held) if isinstance(part, Grid)]
    assert list(dict.fromkeys(titles)) == [
        f"The {run}-run's answer, token by token" for run in ("with", "without")
    ]


def test_attention_that_is_not_known_is_none():
    held = lone([-2.0, 1.0], ["No", ""])
    held["diff"] = torch.full_like(held["diff"], torch.nan)
    first, _ = records(held, 3)
    assert first["attention"] == []
    assert np.isnan(first["resample_noising"]["spearman"])
    assert any("none" in row for part in parts(held) if isinstance(part, Grid) for row in part.rows)


def test_a_trace_without_effects_is_damage():
    held = lone([-2.0, 1.0], ["No", ""])
    assert any(isinstance(part, Words) for part in parts(held))
    for show in (parts, trace_chart):
        with pytest.raises(ValueError, match="no effects"):
            show(held | {"effect_logit": {}})


# Charts


def panels(held):
    looking, moving, *maps = trace_chart(held).panels
    return looking, moving, maps


def test_no_two_lines_of_the_legend_look_alike():
    looking, moving, _ = panels(noisy())
    looks = [one.style for one in (*looking.series, *moving.series)]
    assert len({(one.color, one.marker, one.hollow) for one in looks}) == 6 == len(looks)


def test_a_trace_has_a_place_for_every_token():
    """A line is parted where another answer begins."""
    held = noisy(forced=["with", "with", "without", "without"])
    looking, moving, maps = panels(held)
    assert maps[-1].x_names == ["Yes\n(No)", ",", "there", "\\n"]
    shares = held["with"].reshape(4, -1)
    highest, mean = looking.series[:2]
    np.testing.assert_allclose(np.delete(highest.y, 2), shares.max(1).values, rtol=1e-6)
    np.testing.assert_allclose(np.delete(mean.y, 2), shares.mean(1), rtol=1e-6)
    assert np.isnan(highest.y[2])
    assert [one.at for one in looking.guides] == [1.5]
    effects = lead_effects(held)
    for series, values in zip(moving.series, effects.values(), strict=True):
        np.testing.assert_allclose(np.delete(series.y, 2), np.abs(values).sum((1, 2)), rtol=1e-6)
    for one, values in zip(maps, effects.values(), strict=True):
        assert one.values.shape == (HEADS, 4)
        for name, row in zip(one.y_names, one.values, strict=True):
            layer, head = map(int, name.split("."))
            np.testing.assert_allclose(row, values[:, layer, head])


def test_the_contrast_leads_where_there_is_a_rival():
    held, way = noisy(), "resample_noising"
    lead = lead_effects(held)[way]
    np.testing.assert_allclose(lead[0], held["effect_contrast"][way][0])
    np.testing.assert_allclose(lead[1:], held["effect_logit"][way][1:])


def test_a_trace_without_attention_or_with_one_direction():
    held = noisy()
    held["with"] = held["without"] = torch.full_like(held["with"], torch.nan)
    for name in ("effect_logit", "effect_contrast"):
        del held[name]["resample_denoising"]
    looking, _, maps = panels(held)
    assert not looking.series
    assert len(maps) == 1


def test_means_over_pairs_have_intervals_where_two_pairs_have_the_token():
    held = noisy_over_pairs()
    looking, moving, maps = panels(held)
    assert maps[-1].x_names == ["Yes\n(No)", "ring/square", "big\nn=1"]
    diff = held["diff"].reshape(3, -1)
    (line,) = looking.series
    np.testing.assert_allclose(line.y, diff.max(1).values, rtol=1e-6)
    assert line.texts == ["{}.{}".format(*divmod(int(flat), 6)) for flat in diff.argmax(1)]
    reach = np.array([0.1, 0.1, np.nan])
    np.testing.assert_allclose(line.high - line.y, reach, rtol=1e-5)
    np.testing.assert_allclose(line.y - line.low, reach, rtol=1e-5)
    for series, total in zip(moving.series, held["total"].values(), strict=True):
        np.testing.assert_allclose(series.y, total, rtol=1e-6)
    assert "90% intervals over pairs" in trace_chart(held).note


def test_a_dot_marks_an_effect_whose_interval_excludes_0():
    for one in panels(noisy_over_pairs())[2]:
        beyond = np.abs(one.values) > 1
        beyond[:, 2] = False  # one pair has no interval
        (dots,) = one.cells
        marked = np.zeros_like(beyond)
        marked[dots.rows, dots.columns] = True
        np.testing.assert_array_equal(marked, beyond)


def test_tokens_that_few_pairs_have_are_left_out_of_a_full_figure(monkeypatch):
    monkeypatch.setattr(charts, "SLOTS", 2)
    chart = trace_chart(noisy_over_pairs())
    assert len(chart.panels[3].x_names) == 2
    assert "Left out: the tokens that fewest pairs have (1)." in chart.note


@pytest.mark.parametrize("make", [noisy, noisy_over_pairs])
def test_a_trace_can_be_drawn_and_shown(make):
    chart = trace_chart(make())
    draw(chart, Sheet(), "Is it $5?", "top-left")
    labels = [one.label for one in figures(chart).values()]
    assert all("Largest: head " in one for one in labels[2:])
