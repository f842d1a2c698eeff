"""Effects of whole vision layers, as a verdict found."""

from pathlib import Path

from headpatch.core.output.folder import find
from headpatch.report.html.sections import tower
from tests.report.html import made


def test_a_verdict_gives_layers_with_intervals(tmp_path: Path) -> None:
    made.verdict(tmp_path)
    found = made.section(tower.section, tmp_path)
    assert found.values["judged"] == {"pairs": "30", "layer": "4", "value": "+0.040",
                                      "interval": "[+0.030, +0.060]"}  # fmt: skip
    band, line = found.figures["tower-judged"].data
    assert line["y"] == [0, 0.01, 0.02, 0.03, 0.04]
    assert max(band["y"]) == 0.06


def test_a_sweep_is_shown_elsewhere(tmp_path: Path) -> None:
    made.tower(tmp_path)
    assert tower.section(find(tmp_path)) is None
