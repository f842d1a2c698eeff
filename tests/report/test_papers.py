"""Results for a paper: tables as markup, a paragraph on methods; a study's schema for editors."""

import json
from pathlib import Path

import pytest
import yaml

from headpatch.present.markup import written
from headpatch.present.parts import Grid
from headpatch.reports.papers import paragraph, tables
from tests.command import done, refused_early

RESULTS = Path(__file__).parents[2] / "attention_data"
GRID = Grid("50% & more", ("head", "effect ±"), (("1.2_a", "-0.25 to +0.5"),), (False, True))


def test_a_table_as_latex_escapes_and_aligns() -> None:
    lines = [line.strip() for line in written(GRID, "latex").splitlines()]
    assert r"\caption{50\% \& more}" in lines
    assert r"\begin{tabular}{lr}" in lines
    assert r"head & effect $\pm$ \\" in lines
    assert r"1.2\_a & $-$0.25 to $+$0.5 \\" in lines


def test_a_table_as_markdown() -> None:
    assert written(GRID, "markdown").splitlines() == [
        "**50% & more**",
        "",
        "| head | effect ± |",
        "| --- | ---: |",
        r"| 1.2\_a | -0.25 to +0.5 |",
    ]


def test_what_verbs_showed_is_written_for_a_paper() -> None:
    found = done("table", RESULTS / "verdict", "--format", "latex").out
    assert found.count(r"\begin{table}") == found.count(r"\end{table}") >= 4
    assert found.rstrip() == "\n".join(tables(RESULTS / "verdict", "latex")).rstrip()


def test_a_paragraph_says_what_was_run() -> None:
    record = yaml.safe_load((RESULTS / "verdict" / "run.yaml").read_text())
    run, study = record["run"], record["study"]
    text = paragraph(RESULTS / "verdict")
    for fact in (run["headpatch"], run["torch"], run["weights"][:19], f"{run['pairs']} pairs",
                 f"{run['scenes']} scenes", f"±{study['verdict']['delta']}",
                 f"{study['pairs']['resamples']:,} bootstrap draws"):  # fmt: skip
        assert fact in text
    cited = {line.split("]")[0] for line in text.splitlines() if line.startswith("[")}
    assert cited == {"[vig2020", "[zhang2024", "[mueller2025"}
    ablated = paragraph(RESULTS)
    assert study["question"] in ablated
    assert "attention to the image" in ablated
    assert "that of the other run" in ablated


@pytest.mark.parametrize("verb", ["table", "methods"])
def test_a_folder_without_results_is_refused(verb: str, tmp_path: Path) -> None:
    assert "run.yaml" in refused_early(verb, tmp_path)


def test_the_schema_of_a_study_names_every_section() -> None:
    schema = json.loads(done("schema").out)
    assert {"with", "answers", "ablate", "verdict", "pairs"} <= set(schema["properties"])
    assert schema["additionalProperties"] is False
