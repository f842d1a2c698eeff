"""Charts of a ranking that show the pictures: attention over them, and what the model is given."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from headpatch.present.canvas import array
from headpatch.present.chart import Chart
from headpatch.present.model_view import model_view_chart
from headpatch.present.overlays import overlay_chart, tower_overlay_chart
from headpatch.questions.rank.charts import RUNS


def overlays_chart(
    per_head: Mapping[str, Any], present: Mapping[str, Any], absent: Mapping[str, Any], count: int
) -> Chart:
    """Lay the attention of the first heads of the ranking over both pictures."""
    rank = np.asarray(per_head["rank"])
    heads = [divmod(int(index), rank.shape[1]) for index in rank.ravel().argsort()[:count]]
    first, second = (Image.fromarray(np.asarray(run["image"])) for run in (present, absent))
    return overlay_chart(first, second, present, absent, heads)


def tower_overlays_chart(
    present: Mapping[str, Any], absent: Mapping[str, Any], count: int
) -> Chart | None:
    """Do likewise for heads of the vision tower; None where no token of it has a place."""
    if "vision_patch_rows" not in present:
        return None
    first, second = (Image.fromarray(np.asarray(run["image"])) for run in (present, absent))
    return tower_overlay_chart(first, second, present, absent, count)


def view_chart(present: Mapping[str, Any], absent: Mapping[str, Any]) -> Chart | None:
    """Show what the model is given of both pictures; None where no image token has a place."""
    runs = present, absent
    box = tuple(map(float, array(present, "region_box", 1)))
    images = [np.asarray(run["image"], dtype=np.uint8) for run in runs]
    titles = [name.capitalize() for name, _ in RUNS.values()]
    return model_view_chart(images, array(present, "boxes", 2), box, titles)
