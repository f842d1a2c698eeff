"""How the bundled model was made: drawn scenes, turns of talk, losses, trainer. Not in the wheel.

One command trains it, from the repository's root: ``python -m training.train --out DIR``. The model
and its card lie in `headpatch/models/demo/`.
"""
