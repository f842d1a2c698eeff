import numpy as np
import pytest
import torch

from headpatch.report.heads import top_different_heads

pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.usefixtures("draft")]

SEED_TOP = [  # layer, head, diff, with, without: the top five of the published analysis
    (24, 17, 0.4832, 0.8042, 0.3210),
    (23, 20, 0.4280, 0.7754, 0.3474),
    (19, 31, 0.4055, 0.5908, 0.1853),
    (17, 13, 0.3677, 0.6733, 0.3057),
    (17, 30, 0.3496, 0.5947, 0.2451),
]


def seed_results(image_mass: float = 0.3) -> dict:
    with_, without = np.full((32, 32), 0.25), np.full((32, 32), 0.25)
    for layer, head, _, present, absent in SEED_TOP:
        with_[layer, head], without[layer, head] = present, absent
    rank = np.empty(1024, dtype=np.int64)
    rank[np.argsort(without.ravel() - with_.ravel(), kind="stable")] = np.arange(1, 1025)
    shares = {"with": with_, "without": without, "diff": with_ - without}
    raw = {f"{key}_raw": value * image_mass for key, value in shares.items()}
    results = {k: torch.from_numpy(v).float() for k, v in (shares | raw).items()}
    return {**results, "rank": torch.from_numpy(rank.reshape(32, 32)), "top": 5}


def test_the_compared_values_are_printed_in_order(tmp_path, drawn):
    top_different_heads(seed_results(), tmp_path / "f.png", top=5)
    shares = drawn.last.axes[0]
    names = [label.get_text() for label in shares.get_yticklabels()]
    assert names == ["24.17", "23.20", "19.31", "17.13", "17.30"]
    assert shares.yaxis_inverted()  # the first is on top
    texts = drawn.texts()
    for _, _, diff, present, absent in SEED_TOP:
        assert {f"+{np.float32(diff):.3f}", f"{present:.3f}", f"{absent:.3f}"} <= set(texts)
    assert not any("†" in text for text in texts)


def test_layers_are_counted(tmp_path, drawn):
    top_different_heads(seed_results(), tmp_path / "f.png", top=5)
    heights = [bar.get_height() for bar in drawn.last.axes[2].patches]
    assert len(heights) == 32
    assert {i: h for i, h in enumerate(heights) if h} == {17: 2, 19: 1, 23: 1, 24: 1}


def test_heads_that_hardly_look_at_the_image_are_marked(tmp_path, drawn):
    results = seed_results()
    for key in ("with_raw", "without_raw"):
        results[key][23, 20] *= 0.1  # 3% of its attention is on the image
    top_different_heads(results, tmp_path / "f.png", top=5)
    names = [label.get_text() for label in drawn.last.axes[0].get_yticklabels()]
    assert names == ["24.17", "23.20 †", "19.31", "17.13", "17.30"]
    assert any("Less than 5%" in text for text in drawn.texts())


def test_a_head_with_no_image_attention_at_all_is_drawn(tmp_path):
    results = {k: torch.zeros(1, 2) for k in ("with", "without", "diff", "with_raw", "without_raw")}
    results["rank"] = torch.tensor([[1, 2]])
    top_different_heads(results, tmp_path / "f.png")
    assert (tmp_path / "f.png").exists()


def test_top_must_be_positive(tmp_path):
    with pytest.raises(ValueError, match="top"):
        top_different_heads(seed_results(), tmp_path / "f.png", top=0)
