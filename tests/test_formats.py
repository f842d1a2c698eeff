"""What is written about files is what the code declares, and files hold what is declared."""

from scripts.formats import README, renewed


def test_the_tables_of_columns_are_those_of_the_code() -> None:
    """``make format`` writes them anew."""
    text = README.read_text(encoding="utf-8")
    assert renewed(text) == text
