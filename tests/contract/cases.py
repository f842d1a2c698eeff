"""How each question is asked in the contract tests: small, on the planted circuit."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from headpatch.core.question import Verb
from headpatch.questions import VERBS
from tests.planted import FORM, HEADS

LOOKER, WRITER = str(HEADS["looker"].head), str(HEADS["blind writer"].head)
BOTH = f"{LOOKER},{WRITER}"


@dataclass(frozen=True)
class Case:
    """Options of a question, by name.

    Attributes
    ----------
    options
        As the study has them.
    pairs
        What else they are over pairs.
    """

    options: Mapping[str, Any]
    pairs: Mapping[str, Any] = field(default_factory=dict)


CASES = {
    "rank": Case({"top": 4, "overlays": 0}, {"by": "localization"}),
    "ablate": Case(
        {
            "heads": BOTH,
            "kinds": ("resample", "scale", "reweight"),
            "alpha": (0.5, 2.0),
            "controls": 2,
        },
        {"kinds": ("resample", "mean", "scale", "reweight")},
    ),
    "sweep": Case({"kinds": ("zero",), "noise": 2}, {"kinds": ("mean",), "positions": "question"}),
    "cut": Case(
        {
            "edges": ("answer-region", "answer-sinks"),
            "layers": "1-2",
            "controls": 1,
            "sink_dims": (FORM.features.index("bright"),),
            "sink_tau": 2e-4,
        }
    ),
    "combine": Case({"heads": BOTH}),
    "path": Case({"heads": LOOKER, "edges": ("answer-region",), "window": 1}),
    "trace": Case({"tokens": 1, "directions": ("noising",)}),
    "rollout": Case({"tokens": 1, "draws": 2}),
    "evaluate": Case(
        {"heads": BOTH, "kinds": ("zero", "scale", "reweight"), "controls": 2, "each": True},
        {"kinds": ("resample", "mean")},
    ),
}
"""A question that is missing here fails its contract."""

ASKED = [
    verb for verb in VERBS if verb.schemas and verb.name not in ("verdict", "claims", "compare")
]
"""Questions of one pair that write tables; those about many, or about saved runs, have contract
tests of their own."""
OVER_PAIRS = [verb for verb in ASKED if verb.pairs]


def study_of(verb: Verb, many: bool) -> dict[str, Any]:
    """Return the study's section, for one pair or for many."""
    case = CASES[verb.name]
    options = {**case.options, **(case.pairs if many else {})}
    return {key: list(one) if isinstance(one, tuple) else one for key, one in options.items()}
