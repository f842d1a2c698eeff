r"""Do saved runs agree on which heads and layers look, and which act?

Reads the folders that rank, sweep, ablate or verdict wrote, of several models, prompts or data
sets, and runs no model. For every two runs and every figure of heads that both have (attention
difference; normalized effects of the same kind, direction and positions):

- Spearman's rho over the heads that both have, if their grids of heads are alike, and over layers;
  with an interval over scenes where the runs kept each pair (a verdict; a sweep over pairs), and
  the ceiling: the rho that two lists so noisy would reach if the true ones were the same;
- how many of the first heads (--top) they share, what chance alone shares, and its p;
- of two verdicts, how many heads have the same class, and how many of those that act are the same.

Runs over the same pairs are resampled together, others each on its own. Runs whose models have
other numbers of layers are compared by relative depth only if --depth says so. What cannot be
compared is refused in one line.

Writes compare.csv, a row for each two runs and figure, and compare.png.

Examples
--------
`headpatch rank --out first`

`headpatch rank --question "Do you see anything in the top left corner?" --out second`

`headpatch compare first second --out compared`
"""

from headpatch.core.question import Verb
from headpatch.questions.compare.columns import COMPARE

VERB = Verb(
    "compare", "Do saved runs agree on which heads look, and which act?", None, __doc__ or "",
    (COMPARE,), ("compare.png",), pairs=False, own_command=True,
)  # fmt: skip
