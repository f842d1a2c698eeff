from io import StringIO

import pytest
from rich.console import Console

from headpatch.report.rollouts import rollout_summary, rollout_tables
from headpatch.report.trace_tables import trace_summary, trace_tables

pytestmark = pytest.mark.filterwarnings("error")


def said(rich):
    console = Console(width=100, file=StringIO())
    console.print(rich, crop=False, markup=False)
    return console.file.getvalue()


def summary(token, rival, effect, below=False, forced="with"):
    row = {"head": "1.2", "effect": effect, "below_floor": below}
    measure = "contrast" if rival else "logit"
    return {
        "forced": forced,
        "token": token,
        "rival": rival,
        "measure": measure,
        f"{measure}_with": 4.0,
        f"{measure}_without": -4.0,
        "noise_floor": 1e-6,
        "attention": [{"head": "0.1", "value": 0.25}],
        "resample_noising": {"total": abs(effect), "top": [row], "spearman": 0.1},
    }


def test_the_table_of_tokens():
    tokens = [summary("Yes", "No", -2.0), summary("[,]", "", 1e-7, True)]
    text = said(trace_tables(tokens))
    assert "The with-run's answer, token by token" in text
    yes, comma = (line for line in text.splitlines() if "1.2" in line)
    assert yes.split() == ["Yes", "No", "+4.00", "-4.00", "0.1", "+0.25", "1.2", "-2.00"]
    assert comma.split() == ["[,]", "(4.00)", "(-4.00)", "0.1", "+0.25", "1.2", "(+1e-07)"]
    assert "heads move 'Yes' most" in trace_summary(tokens, True)
    assert "INVALID" in trace_summary(tokens, False)


def area(below, count=20, run="with"):
    return {
        "run": run, "way": "delete", "map": "rollout_patches", "area": 0.5, "random_mean": 0.1,
        "random_sd": 0.02, "random_n": count, "random_below": below, "region_size": 4,
        "at_region_size": 1.0, "random_at_region_size": 0.25, "region": 1.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("below", "words"),
    [(20, "more than any of 20"), (7, "more than 7 of 20"), (0, "no more than any of 20")],
)
def test_words_about_random_orders(below, words):
    assert words in rollout_summary([area(below)], "", True)
    assert "One pair" in rollout_summary([area(below)], "", True)
    assert "INVALID" in rollout_summary([area(below)], "", False)
    assert rollout_summary([], "why", True) == "The maps are not checked: why."


def test_tables_of_a_rollout():
    regions = [
        {"method": "rollout", "stage": "patches", "run": "with", "region": 0.5, "even": 0.25,
         "elsewhere": 0.01}
    ]  # fmt: skip
    text = said(rollout_tables(regions, [area(7)]))
    assert "7/20" in text
    assert "50.0%" in text
    assert "first 4" in text
    assert "matter" not in said(rollout_tables(regions, []))


def mean_summary(token, rival, effect, pairs=(4, 4), ends=True):
    nan = float("nan")
    found = summary(token, rival, effect)
    low, high = (effect - 1, effect + 1) if ends else (nan, nan)
    found["resample_noising"]["top"][0] |= {"effect_low": low, "effect_high": high}
    found["resample_noising"] |= {"total_low": abs(effect), "total_high": abs(effect)}
    return found | {
        "tokens": {"top": 3, "bottom": 1},  # a token may be any word
        "pairs": pairs[0],
        "measure_pairs": pairs[1],
    }


def test_the_table_of_means():
    slots = [
        mean_summary("Yes", "No", -2.0),
        mean_summary("top/bottom", "left", 0.5, (4, 3)),
        mean_summary("big", "red", 9.0, (1, 1), ends=False),
    ]
    text = said(trace_tables(slots, 0.95))
    yes, place, big = (line for line in text.splitlines() if "1.2" in line)
    assert yes.split()[:3] == ["Yes", "No", "4"]
    assert yes.rstrip().endswith("1.2 -2.00 [-3.00, -1.00]")
    assert place.split()[2] == "4/3"
    assert big.rstrip().endswith("1.2 +9.00")
    words = " ".join(text.split())
    assert "95% intervals over pairs" in words
    assert "partly lucky" in words
    line = trace_summary(slots, True, 4)
    assert "heads move 'Yes' most" in line  # not 'big', which one pair has
    assert line.endswith("Means over 4 pairs.")
    assert "INVALID" in trace_summary(slots, False, 4)
