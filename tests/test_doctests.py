"""The examples in the docstrings of the public names run, and say what they say."""

import doctest
from importlib import import_module
from inspect import isroutine

import pytest

import headpatch as hp
from tests.tiny import tiny_vlm

ROOMS = sorted(
    {
        "headpatch",
        "headpatch.heads",
        *(f"headpatch.{room.partition(':')[0]}" for room in hp._HOMES.values()),
    }
)
DEAR = ("headpatch.questions.path.question.path", "headpatch.questions.rollout.question.rollout")
"""Up to a minute on the bundled model: run on a tiny one."""


@pytest.fixture(scope="module")
def session() -> hp.Session:
    """What every example starts from."""
    return hp.open_session(hp.Study(), positions="answer")


@pytest.fixture(scope="module")
def small_session() -> hp.Session:
    """The same of a model of a few heads, whose answers do not flip."""
    return hp.open_session(hp.Study(force=True), tiny_vlm(), positions="answer")


@pytest.fixture(scope="module")
def pairs(session: hp.Session) -> hp.Pairs:
    """Two pairs: what every example of many pairs starts from."""
    return hp.open_pairs(n=2, vlm=session.vlm)


@pytest.fixture(scope="module")
def small_pairs(small_session: hp.Session) -> hp.Pairs:
    """The same of a model of a few heads."""
    return hp.open_pairs(hp.Study(force=True), n=2, vlm=small_session.vlm)


@pytest.mark.parametrize("room", ROOMS)
def test_examples(
    room: str,
    session: hp.Session,
    small_session: hp.Session,
    pairs: hp.Pairs,
    small_pairs: hp.Pairs,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(request.config.rootpath)  # where attention_data lies
    module = import_module(room)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS, verbose=False)
    said: list[str] = []
    for test in doctest.DocTestFinder(exclude_empty=True).find(module):
        one, many = (small_session, small_pairs) if test.name in DEAR else (session, pairs)
        test.globs.update(hp=hp, session=one, pairs=many, vlm=one.vlm)
        runner.run(test, out=said.append)
    assert not runner.failures, "".join(said)


def test_every_public_function_has_an_example() -> None:
    found = {name: getattr(hp, name) for name in hp.__all__}
    bare = [n for n, one in found.items() if isroutine(one) and ">>>" not in (one.__doc__ or "")]
    assert not bare
