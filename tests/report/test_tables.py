"""Tables for a terminal: every figure whole at every width, every text as it was given."""

import io

import pytest
from rich.console import Console, RenderableType

from headpatch.cli.show import show
from headpatch.present import tables

WIDTHS = (20, 40, 60, 80, 120, 200)


def text(*parts: RenderableType, width: int = 80, terminal: bool = False) -> str:
    """What the command line prints on a console of this width."""
    stream = io.StringIO()
    console = Console(file=stream, width=width, force_terminal=terminal, color_system=None)
    show(console, *parts)
    return stream.getvalue()


def cells(shown: str) -> list[list[str]]:
    """The words of each line."""
    return [line.split() for line in shown.splitlines()]


def reading(ld: float, **more: object) -> dict[str, object]:
    found = {"p_yes": 0.5, "p_no": 0.25, "rank_yes": 1, "rank_no": 2, "top": " Yes", "p_top": 0.5}
    return {"ld": ld, **found, "variants": {}, **more}


@pytest.mark.parametrize("width", WIDTHS)
def test_answers_and_questions_are_whole(width: int) -> None:
    question = "Is [bold]anything[/bold] at [0, 1] in the top left corner?"
    answer = "Yes, there is a [red]triangle[/red] in the top left corner of the image: \\[x]."
    runs = [reading(7.4934, p_yes=0.31, rank_yes=2, top=" There", variants={" yes": 0.043}),
            reading(-8.881, p_no=2.3e-20, rank_no=31_002)]  # fmt: skip
    shown = text(tables.answers(question, ("Yes", "No"), runs, (answer, "No.")), width=width)
    assert "' yes' holds 0.043" in " ".join(shown.split())
    assert "…" not in shown
    assert "+7.493" in shown
    assert "-8.881" in shown
    if width >= 60:
        words = shown.split()
        for part in (*question.split(), *answer.split(), "0.310,", "2.3e-20,", "31,002"):
            assert part in words


def test_without_full_answers_the_token_that_wins_is_shown() -> None:
    runs = [reading(1.0, top=" There", p_top=0.97), reading(-1.0, p_top=3e-5)]
    shown = text(tables.answers("Q?", ("Ja", "Nein"), runs), width=100)
    assert "' There' 0.970" in shown
    assert "' Yes' 3.0e-05" in shown
    assert "P(Ja)" in shown
    assert "P(Nein)" in shown


def test_paths_of_files_are_never_broken() -> None:
    """They are there to be copied."""
    folder = "/a/" + "very-long-folder-name/" * 10 + "[brackets] and spaces"
    stream = io.StringIO()
    console = Console(file=stream, width=40)
    console.print(tables.files(folder, ["heads.csv"]), soft_wrap=True)
    assert f"Wrote to {folder}:" in stream.getvalue().splitlines()
    assert "  heads.csv" in stream.getvalue().splitlines()
