"""The examples in the docstrings of the public names run, and say what they say."""

import doctest
from functools import cache
from importlib import import_module
from inspect import isroutine

import pytest

import headpatch as hp
from tests.tiny import tiny_vlm

ROOMS = {f"headpatch.{room.partition(':')[0]}" for room in hp._HOMES.values()}
DEAR = tuple(f"headpatch.questions.{name}.question.{name}" for name in ("check", "path", "rollout"))
"""Up to a minute on the bundled model: run on a tiny one."""


@cache
def opened(small: bool) -> dict[str, object]:
    """What every example starts from, of the bundled model, or of one of a few heads."""
    study, vlm = (hp.Study(force=True), tiny_vlm()) if small else (hp.Study(), None)
    session = hp.open_session(study, vlm, positions="answer")
    pairs = hp.open_pairs(study, n=2, vlm=session.vlm)
    return {"hp": hp, "session": session, "pairs": pairs, "vlm": session.vlm}


@pytest.mark.parametrize("room", sorted(ROOMS | {"headpatch", "headpatch.heads"}))
def test_examples(
    room: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(request.config.rootpath)  # where attention_data lies
    module = import_module(room)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS, verbose=False)
    said: list[str] = []
    for test in doctest.DocTestFinder(exclude_empty=True).find(module):
        test.globs.update(opened(test.name in DEAR))
        runner.run(test, out=said.append)
    assert not runner.failures, "".join(said)


def test_every_public_function_has_an_example() -> None:
    found = {name: getattr(hp, name) for name in hp.__all__}
    bare = [n for n, one in found.items() if isroutine(one) and ">>>" not in (one.__doc__ or "")]
    assert not bare
