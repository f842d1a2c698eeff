"""What `headpatch compare` writes."""

from typing import Any

from headpatch.present.column import Column, Schema


def _text(name: str, meaning: str, **more: Any) -> Column:
    return Column(name, meaning, "–", "text", **more)


def _number(name: str, meaning: str, unit: str = "–", form: str = "", **more: Any) -> Column:
    return Column(name, meaning, unit, "number", form, optional=True, **more)


COMPARE = Schema(
    "compare.csv",
    "two runs × figure of heads × unit",
    (
        _text("first", "a run, by its folder", key=True),
        _text("second", "the other run", key=True),
        _text("figure", "`attention difference`; kind, direction and positions of an effect; "
              "`class`: a verdict's; `acting heads`: necessary, sufficient or redundant", key=True),
        _text("unit", "`head`; `layer`: means over its heads; `depth`: layers by relative depth",
              key=True),
        Column("n", "how many are compared", "count", "whole"),
        _number("rho", "Spearman's, of the means of both runs", form="+.3f"),
        _number("rho_low", "lower end of its interval over scenes; empty where a run kept means "
                "alone", form="+.3f"),
        _number("rho_high", "upper end", form="+.3f"),
        _number("ceiling", "rho that lists so noisy would reach if the true ones were the same: "
                "the root of the product of both reliabilities (halves of the scenes)",
                form=".3f"),
        _number("k", "how many of the first are compared; of `acting heads`, those of the first "
                "run", "count", ".0f"),
        _number("k_second", "the same of the second run", "count", ".0f"),
        _number("shared", "how many of them both have; of `class`, heads of the same class",
                "count", ".0f"),
        _number("shared_low", "lower end of its interval over scenes; empty where a run kept means "
                "alone, and of classes", "count", ".1f"),
        _number("shared_high", "upper end", "count", ".1f"),
        _number("chance", "what chance alone shares", "count", ".1f"),
        _number("p", "that chance shares as many or more (hypergeometric)", form=".2g"),
        Column("scenes_first", "scenes of the first run; 1: means alone", "count", "whole"),
        Column("scenes_second", "of the second run", "count", "whole"),
        Column("together", "whether both ran the same pairs, which are resampled together", "–",
               "truth")
    )
)  # fmt: skip
