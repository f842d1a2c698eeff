"""What ``--heads`` may say, and what is said when it says something else."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headpatch.errors import InputError
from headpatch.heads import Grid, Head, HeadSet, Selection
from tests import refusals

GRID, VISION = Grid(32, 32), Grid(24, 16, "vision")
RANKING = tuple(reversed(list(GRID)))

lm_heads = st.builds(Head, st.integers(0, 31), st.integers(0, 31))
vision_heads = st.builds(Head, st.integers(0, 23), st.integers(0, 15), st.just("vision"))
heads = lm_heads | vision_heads


def refusal(text: str, ranking: tuple[Head, ...] = RANKING, vision: Grid | None = VISION) -> str:
    """The one line that refuses `text`."""
    read = Selection.parse
    return refusals.refusal(lambda: read(text).resolve(GRID, ranking, vision), of="--heads")


def resolved(text: str) -> list[str]:
    return [str(head) for head in Selection.parse(text).resolve(GRID, RANKING, VISION)]


@given(heads)
def test_a_head_reads_back(head: Head) -> None:
    assert Head.parse(str(head)) == head
    assert Head.parse(f"  {head} ") == head


@given(st.lists(heads, unique=True, min_size=1, max_size=6))
def test_a_set_reads_back_whatever_its_order(members: list[Head]) -> None:
    one = HeadSet(tuple(members))
    assert HeadSet.parse(str(one)) == one == HeadSet.of(*reversed(members))
    assert hash(one) == hash(HeadSet.of(*reversed(members)))
    assert len(one) == len(members)
    assert set(one) == set(members)


@given(st.lists(heads, min_size=1, max_size=4), st.data())
def test_a_set_holds_each_head_once(members: list[Head], data: st.DataObject) -> None:
    with pytest.raises(InputError, match="twice"):
        HeadSet((*members, data.draw(st.sampled_from(members))))


@given(st.lists(heads, unique=True, min_size=1, max_size=6))
def test_listed_heads_keep_their_order(members: list[Head]) -> None:
    text = ",".join(map(str, members))
    selection = Selection.parse(text)
    assert selection.resolve(GRID, (), VISION) == tuple(members)
    assert str(selection) == text
    assert Selection.parse(str(selection)) == selection
    assert not selection.needs_ranking


@given(heads, st.integers(0, 31))
def test_a_range_is_its_heads(first: Head, last: int) -> None:
    last = min(last, (GRID if first.tower == "lm" else VISION).heads - 1)
    if last < first.head:
        return
    end = Head(first.layer, last, first.tower)
    listed = ",".join(
        str(Head(first.layer, head, first.tower)) for head in range(first.head, last + 1)
    )
    assert resolved(f"{first}-{end}") == resolved(listed)


@given(st.integers(0, 31), st.integers(0, 31))
def test_layers_are_all_their_heads(first: int, last: int) -> None:
    first, last = sorted((first, last))
    expected = [f"{layer}.{head}" for layer in range(first, last + 1) for head in range(32)]
    assert resolved(f"layer:{first}-{last}") == expected
    assert resolved(f"layer:{first}") == expected[:32]


@given(st.integers(1, GRID.layers * GRID.heads))
def test_top_takes_the_first_of_the_ranking(count: int) -> None:
    selection = Selection.parse(f"top:{count}")
    assert selection.needs_ranking
    assert selection.resolve(GRID, RANKING) == RANKING[:count]


def test_parts_mix_and_spaces_do_not_matter() -> None:
    layer = [f"v2.{head}" for head in range(16)]
    expected = ["3.1", "24.30", "24.31", *layer, "31.31", "31.30"]
    assert resolved(" 3.1 , 24.30-24.31,layer:v2 , top:2") == expected


def test_a_grid_is_walked_layer_by_layer() -> None:
    assert list(Grid(2, 2)) == [Head(0, 0), Head(0, 1), Head(1, 0), Head(1, 1)]
    assert list(map(str, Grid(2, 2, "vision"))) == ["v0.0", "v0.1", "v1.0", "v1.1"]


@pytest.mark.parametrize("grid", [GRID, VISION])
def test_whole_layers_are_the_grid_cut_layer_by_layer(grid: Grid) -> None:
    layers = grid.whole_layers()
    assert [{head.layer for head in one} for one in layers] == [{i} for i in range(grid.layers)]
    assert [head for one in layers for head in one] == list(grid)


def test_a_head_of_the_other_tower_is_none_of_a_grid() -> None:
    assert GRID.check(Head(3, 1)) == Head(3, 1)
    assert VISION.check(Head(3, 1, "vision")) == Head(3, 1, "vision")
    with pytest.raises(InputError, match=r"--heads: v3\.1 is a vision head; expected a language-"):
        GRID.check(Head(3, 1, "vision"))
    with pytest.raises(InputError, match=r"sets: 3\.1 is a language-model head; expected a vision"):
        VISION.check(Head(3, 1), "sets")


@pytest.mark.parametrize(
    ("text", "parts"),
    {
        "40.2": ["40.2", "out of range", "layers 0-31", "heads 0-31"],
        "2.40": ["2.40", "out of range", "heads 0-31"],
        "32.0": ["out of range"],
        "v24.0": ["v24.0", "out of range", "layers 0-23", "heads 0-15"],
        "99999999999999999999.0": ["out of range"],
        "layer:32": ["out of range", "layers 0-31"],
        "layer:30-99": ["out of range"],
        "24.30-24.40": ["24.40", "out of range"],
        "24-17": ["'24-17'", "24.17 or", "Did you mean 24.17?"],
        "L24H17": ["Did you mean 24.17?"],
        "24:17": ["Did you mean 24.17?"],
        "24 17": ["Did you mean 24.17?"],
        "24/17": ["Did you mean 24.17?"],
        "a.b": ["'a.b' is not a head", "24.17"],
        "-1.2": ["'-1.2' is not a head"],
        "24.17.1": ["not a head"],
        "24.17+23.20": ["not a head"],
        "24.": ["not a head"],
        "layer:": ["not a head"],
        "layers:3": ["not a head"],
        "top:-1": ["not a head"],
        "top": ["not a head"],
        "": ["an empty entry", "24.17"],
        "24.17,": ["an empty entry"],
        "24.17,,23.20": ["an empty entry"],
        "top:0": ["selects nothing", "top:1"],
        "top:1025": ["top:1025", "top:1024"],
        "24.17,23.20,24.17": ["24.17 is named twice"],
        "24.17,24.017": ["24.17 is named twice"],
        "24.17,layer:24": ["24.17 is named twice"],
        "24.0-24.5,24.3": ["24.3 is named twice"],
        "top:1,31.31": ["31.31 is named twice"],
        "top:2,top:1": ["31.31 is named twice"],
        "24.31-24.0": ["backwards"],
        "layer:5-3": ["backwards"],
        "24.0-25.3": ["crosses layers", "layer:24-25"],
        "v3.0-3.4": ["crosses layers"],
    }.items(),
    ids=repr,
)
def test_refused_in_one_line(text: str, parts: list[str]) -> None:
    message = refusal(text)
    for part in parts:
        assert part in message


def test_two_numbers_in_two_entries_are_not_guessed_into_one_head() -> None:
    """``--heads 24,17``: each entry is a bare number, from which no head can be guessed."""
    assert "Did you mean" not in refusal("24,17")


def test_vision_heads_need_a_vision_tower() -> None:
    for text in ("v3.1", "layer:v3", "v3.0-v3.2"):
        assert "vision" in refusal(text, vision=None)


def test_top_needs_a_ranking() -> None:
    refusal("top:1", ranking=())


@given(st.text(max_size=12) | st.text("0123456789.,-:vtoplayer ", max_size=14))
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(InputError):
        assert Selection.parse(text).resolve(GRID, RANKING, VISION)


def test_another_argument_is_named_when_asked() -> None:
    with pytest.raises(InputError, match=r"^ablate\.heads: "):
        Selection.parse("24-17", "ablate.heads")
    with pytest.raises(InputError, match=r"^ablate\.heads: "):
        Selection.parse("40.2").resolve(GRID, argument="ablate.heads")
