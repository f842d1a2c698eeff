"""Every question runs on every family of models, of one pair and over pairs, or says why not.

All of them together take minutes: each family is asked one question in eight, by turns, so that a
run sees every family and every question several times; ``HEADPATCH_FAMILIES=all`` asks them all.
"""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import headpatch as hp
from headpatch.core.output.files import columns_of
from headpatch.core.question import Verb
from tests.command import printed
from tests.contract.cases import ASKED, OVER_PAIRS
from tests.families.builders import BUILDERS, UNLISTED, build
from tests.tiny import image_pair

WHOLE = os.environ.get("HEADPATCH_FAMILIES") == "all"
QUESTION = "Is it red?"
HEADS = "0.1,1.1"
OPTIONS: dict[str, dict[str, Any]] = {
    "rank": {"top": 2, "overlays": 0},
    "ablate": {"heads": HEADS, "kinds": ["resample"], "controls": 1},
    "sweep": {"kinds": ["zero"], "noise": 1},
    "cut": {"edges": ["answer-region"], "layers": "1", "controls": 1},
    "combine": {"heads": HEADS, "kinds": ["resample"]},
    "path": {"heads": "1.1", "edges": ["answer-region"], "window": 1},
    "trace": {"tokens": 1, "directions": ["noising"], "noise": 1, "answer": "Yes"},
    "rollout": {"tokens": 1, "draws": 2, "answer": "Yes"},
    "evaluate": {"heads": HEADS, "kinds": ["zero", "mean", "resample"], "controls": 1},
}
"""A question that is missing here fails its contract."""
_ASK_PLACES = ("rank", "path", "cut", "rollout")
_HALF = ("qwen3_5", "llava (lfm2)", "minicpmv4_6")  # of their layers have heads
REFUSED = {
    **{("mllama", verb): "looks at the image by cross-attention" for verb in _ASK_PLACES},
    **{
        (family, verb): "image tokens mix parts of the picture"
        for family in ("idefics2", "granite4_vision")
        for verb in _ASK_PLACES
    },
    **{(family, "rollout"): "2 of 4 layers of tiny have no attention heads" for family in _HALF},
}
"""By family and question: why it is not answered."""
HEADS_OF = dict.fromkeys(_HALF, "1.1,3.1")  # the first layer has none
ONE_PAIR_MAY_DO = ("perturbation_mean.csv",)
"""Of two pairs of random pictures only one may have runs that say different tokens, which its
figures need; and one pair has no mean over pairs."""


def _cases() -> Iterator[Any]:
    ways = [(verb, many) for verb in ASKED for many in (False, True)[: 1 + (verb in OVER_PAIRS)]]
    for place, family in enumerate([*BUILDERS, *UNLISTED]):
        for turn, (verb, many) in enumerate(ways):
            if WHOLE or (turn - 3 * place) % 8 == 0:
                words = f"{family}, {verb.name}{' over pairs' * many}"
                yield pytest.param(family, verb, many, id=words)


def opened(family: str, many: bool) -> Any:
    """A pair of noisy pictures, or two; the answers are whatever they are."""
    vlm, study = build(family), hp.Study().override({"force": True})
    pictures = [image_pair((84, 56)), image_pair((56, 84))]
    if not many:
        pair = hp.make_pair(*pictures[0], QUESTION, "top-left")
        return hp.open_session(study, vlm, "answer", pair)
    rows = [
        {"with": shown, "without": without, "question": QUESTION, "region": "top-left"}
        for shown, without in pictures
    ]
    return hp.open_pairs(study, rows, vlm=vlm, on_progress=False, resamples=100)


@pytest.mark.parametrize(("family", "verb", "many"), list(_cases()))
def test_a_family_is_asked(family: str, verb: Verb, many: bool) -> None:
    quiet = {} if verb.name == "rank" else {"on_progress": False}
    refused, options = None, OPTIONS[verb.name]
    if family in HEADS_OF and options.get("heads") == HEADS:
        options = {**options, "heads": HEADS_OF[family]}
    try:
        result = getattr(hp, verb.name)(opened(family, many), **quiet, **options)
    except hp.InputError as error:
        refused = str(error)
    assert (refused is not None) == ((family, verb.name) in REFUSED), refused
    if refused is not None:
        assert len(refused.splitlines()) == 1
        assert REFUSED[family, verb.name] in refused
        return
    for schema in verb.schemas:
        columns = columns_of(result.files().get(schema.file, {}))
        for column in schema:
            if column.interval and column.name in columns and schema.file not in ONE_PAIR_MAY_DO:
                values = np.asarray(columns[column.name], dtype=float)
                assert np.isfinite(values).any(), (schema.file, column.name)
    assert printed(verb.question().view(result.files(), result.origin.context)).strip()
