"""What is written about files is what the code declares, and files hold what is declared."""

import ast
import inspect

import pytest

import headpatch as hp
from headpatch.core.study.study import Study
from scripts import keywords
from scripts.formats import README, ROOT, SCHEMA, renewed


def test_the_tables_of_columns_are_those_of_the_code() -> None:
    """``make format`` writes them anew."""
    text = README.read_text(encoding="utf-8")
    assert renewed(text) == text


def test_the_schema_is_that_of_the_study_and_every_study_names_it() -> None:
    assert SCHEMA.read_text(encoding="utf-8") == f"{Study.schema_text()}\n"
    studies = list((ROOT / "configs").rglob("*.yaml"))
    assert studies
    for study in studies:
        first = study.read_text(encoding="utf-8").splitlines()[0]
        named = first.removeprefix("# yaml-language-server: $schema=")
        assert (study.parent / named).resolve() == SCHEMA, study


def test_types_of_options_are_those_of_the_study() -> None:
    written = keywords.MODULE.read_text(encoding="utf-8")
    assert ast.dump(ast.parse(written)) == ast.dump(ast.parse(keywords.written()))


@pytest.mark.parametrize("verb", [one for one in keywords.SECTIONS if one != "corrupt"])
def test_a_call_lists_its_options(verb: str) -> None:
    """As an editor, a notebook and ``help`` show them."""
    call = getattr(hp, verb)
    own, options = inspect.signature(call).parameters, keywords.SECTIONS[verb].model_fields
    assert {*options} - {*own} <= {"manifest", "n", "folder", "sets", "rows"}
