"""Words and tables of a trace say what its tensors hold, and no more than its pairs can show."""

import numpy as np
import pytest
import torch
from rich.console import Console

from headpatch.core.question import Context
from headpatch.present.parts import Grid, Words
from headpatch.present.terminal import renderables
from headpatch.questions.trace.records import records
from headpatch.questions.trace.view import summary, view

pytestmark = pytest.mark.filterwarnings("error")
ONE, MANY = Context("Q?", "top-left"), Context("Q?", "top-left", pairs=4)
LAYERS, HEADS = 2, 3
AT = (1, 2)  # the only head that does anything


def traced(effects, rivals, tokens=("Yes", "[,]")):
    """Tokens on each of which one head has an effect, below the floor of 1e-6 or not."""
    count = len(tokens)
    maps = torch.zeros(count, LAYERS, HEADS)
    maps[:, AT[0], AT[1]] = torch.tensor(effects)
    diff = torch.zeros(count, LAYERS, HEADS)
    diff[:, 0, 1] = 0.25
    runs = {
        f"{name}_{run}": torch.full((count,), value)
        for name in ("contrast", "logit", "logprob")
        for run, value in (("with", 4.0), ("without", -4.0))
    }
    return {
        "tokens": list(tokens),
        "forced": ["with"] * count,
        "index": torch.arange(count),
        "rivals": list(rivals),
        "measures": ["contrast" if rival else "logit" for rival in rivals],
        "says_with": list(tokens),
        "says_without": list(tokens),
        "with": diff,
        "without": torch.zeros_like(diff),
        "diff": diff,
        "contrast_floor": torch.full((count,), 1e-6),
        "logit_floor": torch.full((count,), 1e-6),
        **runs,
        **{f"effect_{name}": {"resample_noising": maps} for name in ("contrast", "logit")},
        "effect_logprob": {"resample_noising": maps},
    }


def over_pairs():
    """A slot that all of 4 pairs have, one where a pair has no rival, and one pair's own."""
    tokens, rivals = ("Yes", "top/bottom", "big"), ("No", "left", "red")
    held, pairs = traced([-2.0, 0.5, 9.0], rivals, tokens), [4, 4, 1]
    few = torch.tensor([count < 2 for count in pairs])

    def ends(mean, reach, name):
        gone = few.reshape(-1, *[1] * (mean.ndim - 1)).expand_as(mean)
        return {f"{name}_{end}": torch.where(gone, torch.nan, mean + sign * reach)
                for end, sign in (("low", -1), ("high", 1))}  # fmt: skip

    effect = held["effect_contrast"]["resample_noising"]
    total = effect.abs().sum((1, 2))
    return held | {
        "texts": [{"Yes": 4}, {"top": 3, "bottom": 1}, {"big": 1}],  # a token may be any word
        "pairs": torch.tensor(pairs),
        "measure_pairs": torch.tensor([4, 3, 1]),
        "floor": torch.full((3,), 1e-6),
        "pair_names": list("abcd"),
        "level": 0.95,
        "total": {"resample_noising": total},
        **ends(held["diff"], 0.1, "diff"),
        **{key: {"resample_noising": value} for key, value in ends(total, 0.0, "total").items()},
        **{key: {"resample_noising": value} for key, value in ends(effect, 1.0, "effect").items()},
    }


def parts(held, context=ONE):
    return list(view({"trace.pt": held}, context))


def printed(held, context=ONE):
    console = Console(width=200)
    with console.capture() as capture:
        console.print(*renderables(parts(held, context)))
    return capture.get()


def test_a_row_a_token():
    held = traced([-2.0, 1e-7], ["No", ""])
    text = printed(held)
    assert "The with-run's answer, token by token" in text
    yes, comma = (line for line in text.splitlines() if "0.1 +0.25" in line)
    assert yes.split() == ["Yes", "No", "+4.00", "-4.00", "0.1", "+0.25", "1.2", "-2.00"]
    assert comma.split() == ["[,]", "(4.00)", "(-4.00)", "0.1", "+0.25", "1.2", "(+1e-07)"]
    words = " ".join(text.split())
    assert "heads move 'Yes' most" in words
    assert words.count("One pair shows one case, not a rule.") == 1
    assert "INVALID" in printed(held, Context(valid=False))


def test_a_page_has_the_token_s_own_logits_too():
    (table,) = (
        part for part in parts(traced([-2.0, 1e-7], ["No", ""]))
        if isinstance(part, Grid) and part.place == "page"
    )  # fmt: skip
    row = dict(zip(table.headings, table.rows[0], strict=True))
    assert (row["logit with"], row["logit without"]) == ("+4.00", "-4.00")
    assert row["resample, noising"].startswith("1.2 -2.00, ")


def test_means_have_intervals_where_two_pairs_have_the_token():
    held = over_pairs()
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
    held = traced([-2.0, 1.0], ["No", "Yes"], ("Yes", "No")) | {"forced": ["with", "without"]}
    titles = [part.title for part in parts(held) if isinstance(part, Grid)]
    assert list(dict.fromkeys(titles)) == [
        "The with-run's answer, token by token",
        "The without-run's answer, token by token",
    ]


def test_attention_that_is_not_known_is_none():
    held = traced([-2.0, 1.0], ["No", ""])
    held["diff"] = torch.full_like(held["diff"], torch.nan)
    first, _ = records(held, 3)
    assert first["attention"] == []
    assert np.isnan(first["resample_noising"]["spearman"])
    assert any("none" in row for part in parts(held) if isinstance(part, Grid) for row in part.rows)


def test_a_trace_without_effects_is_damage():
    held = traced([-2.0, 1.0], ["No", ""]) | {"effect_logit": {}}
    with pytest.raises(ValueError, match="no effects"):
        parts(held)
    assert any(isinstance(part, Words) for part in parts(traced([-2.0, 1.0], ["No", ""])))
