"""The user's words: numbers and paths read strictly, control characters spelled out."""

from pathlib import Path

import pytest

from headpatch.core.claims_grammar import Claim
from headpatch.core.study.options import layer_span
from headpatch.errors import InputError
from headpatch.heads import Head, Selection
from headpatch.pairs.region import Region
from headpatch.text import decimal_number, signed, user_path, visible, whole_number

FOREIGN = ("２４", "٣", "1_0", "24", "9" * 5000)
"""Full-width, Arabic, underscored, (a good one), and more digits than Python reads."""


def test_whole_numbers_are_of_decimal_digits() -> None:
    assert [whole_number(text) for text in FOREIGN] == [None, None, None, 24, None]
    assert [whole_number(text) for text in ("-7", "+7", "007", "1.0", "", " 1")] == [
        -7, 7, 7, None, None, None,
    ]  # fmt: skip


def test_numbers_with_a_point() -> None:
    good = {"0.5": 0.5, "1e-3": 0.001, ".5": 0.5, "3.": 3.0, "-2E2": -200.0}
    assert {text: decimal_number(text) for text in good} == good
    assert [decimal_number(text) for text in ("０.５", "1_0.0", "", ".", "0x1p3", "1,5")] == [
        None
    ] * 6


@pytest.mark.parametrize("digits", ["２４", "٣", "9" * 5000])
def test_names_take_ascii_digits_alone(digits: str) -> None:
    for read, text in (
        (Head.parse, f"{digits}.1"),
        (Selection.parse, f"1.{digits}"),
        (Selection.parse, f"layer:{digits}"),
        (Selection.parse, f"top:{digits}"),
        (Claim.parse, f"head {digits}.1 is necessary"),
        (Claim.parse, f"vision layer {digits} carries the object"),
        (layer_span, digits),
    ):
        with pytest.raises(InputError):
            read(text)


@pytest.mark.parametrize("text", ["０,0,1,1", "0_0,0,1,1", "0,0,１,1"])
def test_a_box_takes_ascii_digits_alone(text: str) -> None:
    with pytest.raises(InputError, match="left,top,right,bottom"):
        Region.parse(text)
    assert Region.parse(" 0, 0 ,.5,1e0").name == "0,0,.5,1e0"


def test_what_acts_on_a_terminal_is_spelled_out() -> None:
    acting = "a\x1b[31mb\x07\x9b\x7f\r\u202e\u2028\ud800"
    assert visible(acting) == r"a\x1b[31mb\x07\x9b\x7f\r\u202e\u2028\ud800"
    plain = "Ist da was? 有吗\tا \u200d🙂\n"
    assert visible(plain) == plain


def test_a_users_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert user_path("~/x", "--out") == Path("/home/me/x")
    assert user_path(Path("~/x"), "--out") == Path("/home/me/x")
    assert user_path("./~/x", "--out") == Path("~/x")
    assert user_path("~no-such-user/x", "--out") == Path("~no-such-user/x")
    for wrong, why in (("a\0b", "NUL"), ("a\udce4b", "UTF-8")):
        with pytest.raises(InputError, match=f"--out: .*{why}"):
            user_path(wrong, "--out")


def test_an_error_is_one_line_of_bounded_length() -> None:
    error = InputError("--pairs a\nb", "x" * 70_000, "one\n  line")
    assert len(str(error)) < 700
    assert str(error).startswith("--pairs a b: xxx")
    assert len(str(InputError("--pairs", "word " * 9_000, "fewer"))) < 1300
    assert str(error).endswith("x; expected one line")


def test_rounding_has_no_sign() -> None:
    """The last bits of two runs of one thing may differ, and so may the sign of a zero."""
    values = -1e-9, 1e-9, 0.00049, -0.0006, 2.0, float("nan")
    assert [signed(one) for one in values] == ["0.000"] * 3 + ["-0.001", "+2.000", "+nan"]
