"""Records of pairs, as a file holds them."""

import pytest

from headpatch.core.plain import from_plain, to_plain
from headpatch.heads import Head


def test_a_record_comes_back() -> None:
    assert from_plain(to_plain({"heads": (Head(1, 2), Head(0, 3))})) == {
        "heads": (Head(1, 2), Head(0, 3))
    }


@pytest.mark.parametrize(
    "named",
    [
        "os:system",
        "headpatch.disk:os.system",  # of a module that one of ours has imported
        "headpatch.disk:write_whole",
        "headpatch.core.plain:Mapping",
        "headpatch.core.plain:nothing",
    ],
)
def test_nothing_but_records_is_made_of_what_a_file_names(named: str) -> None:
    with pytest.raises(TypeError, match="is no record of headpatch's"):
        from_plain({"headpatch is": named, "of": {"command": "true"}})
