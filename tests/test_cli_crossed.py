"""A model that looks at the image across: the command line does what a call does, and no less."""

from pathlib import Path

import pandas as pd
import pytest

import headpatch as hp
from headpatch.core import session as sessions
from headpatch.core.session import Session, open_session
from headpatch.pairs.pair import Pair
from headpatch.pairs.region import Region
from tests.command import ran, refused
from tests.families.builders import build
from tests.tiny import image_pair

QUESTION = "Is it red?"


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Session, list[str]]:
    """A session, and the flags that open the same."""
    vlm = build("mllama")
    monkeypatch.setattr(sessions, "load", lambda *_: vlm)
    images = image_pair()
    for name, image in zip(("with", "without"), images, strict=True):
        image.save(tmp_path / f"{name}.png")
    study = hp.Study().override({"force": True})
    pair = Pair("with-without", *images, QUESTION, Region.parse("top-left"))
    flags = ["--with", f"{tmp_path}/with.png", "--without", f"{tmp_path}/without.png", "--region",
             "top-left", "--question", QUESTION, "--force", "--out", f"{tmp_path}/out"]  # fmt: skip
    return open_session(study, vlm, "answer", pair), flags


def test_named_heads_are_ablated_and_combined(
    asked: tuple[Session, list[str]], tmp_path: Path
) -> None:
    session, flags = asked
    ways = ["--heads", "0.1,0.2", "--kinds", "zero"]
    ran("ablate", *ways, "--controls", "0", *flags)
    own = hp.ablate(session, "0.1,0.2", kinds=["zero"], controls=0).effects
    saved = pd.read_csv(tmp_path / "out/effects.csv", dtype={"heads": str})
    assert saved["heads"].tolist() == own["heads"].tolist()
    assert saved["effect"].tolist() == pytest.approx(own["effect"].tolist(), abs=2e-5)
    ran("combine", *ways, *flags)
    own = hp.combine(session, "0.1,0.2", kinds=["zero"]).table
    saved = pd.read_csv(tmp_path / "out/combinations.csv", dtype={"heads": str})
    assert saved["effect"].tolist() == pytest.approx(own["effect"].tolist(), abs=2e-5)


def test_heads_by_attention_are_refused_for_what_it_is(asked: tuple[Session, list[str]]) -> None:
    session, flags = asked
    words = "it looks at the image by cross-attention, without image tokens"
    assert words in refused("ablate", "--heads", "top:2", *flags)
    with pytest.raises(hp.InputError, match=words):
        hp.ablate(session, "top:2")
