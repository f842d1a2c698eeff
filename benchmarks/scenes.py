"""What scenes cost to find, and what intervals over pairs are worth where pairs share them.

    python -m benchmarks.scenes --pairs 10000

Prints the seconds to look at a picture of 336 × 336 pixels (each is read once), those to group the
pictures of so many drawn pairs, how many scenes were found, and the coverage of 95% intervals of a
mean over 30 scenes of 5 pairs (intraclass correlation 0.9), over pairs and over scenes.
"""

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from headpatch.core.drawn_pairs import draw_pairs
from headpatch.pairs.same_scene import scenes_of
from headpatch.stats.intervals import mean_interval
from headpatch.stats.scenes import by_scene

STUDIES = 2000


def seconds_of_a_picture(folder: Path) -> float:
    """Return the time to read and shrink a picture, over 100 drawn ones."""
    entries = draw_pairs(50, folder, size=336, on_progress=False).entries
    start = time.perf_counter()
    scenes_of(entries)
    return (time.perf_counter() - start) / 100


def coverage(by: str, studies: int = STUDIES) -> float:
    """Return how often 95% intervals over ``pairs`` or ``scenes`` cover the mean, 0.

    Studies are of 30 scenes of 5 pairs, with an intraclass correlation of 0.9.
    """
    scenes, rng = np.repeat(np.arange(30), 5), np.random.default_rng(13)
    shared, own = rng.normal(size=(30, studies)), rng.normal(size=(150, studies))
    values = np.sqrt(0.9) * shared[scenes] + np.sqrt(0.1) * own
    units = by_scene(values, scenes if by == "scenes" else np.arange(150))
    found = mean_interval(units, 0.95, 1000, rng)
    return float(((found.low < 0) & (found.high > 0)).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=2000)
    count = parser.parse_args().pairs
    with TemporaryDirectory() as folder:
        each = seconds_of_a_picture(Path(folder) / "large")
        print(f"to look at a picture: {1000 * each:.1f} ms")
        entries = draw_pairs(count, Path(folder) / "many", size=56, on_progress=False).entries
        scenes_of(entries)  # looks at them
        start = time.perf_counter()
        found = int(scenes_of(entries).max()) + 1
        took = time.perf_counter() - start
        print(f"to group those of {count:,} drawn pairs: {took:.1f} s; {found:,} scenes")
    for by in ("pairs", "scenes"):
        print(f"coverage of 95% intervals over {by}: {coverage(by):.3f}")


if __name__ == "__main__":
    main()
