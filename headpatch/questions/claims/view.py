"""What people see of claims: how many are supported, and the figure behind each."""

from collections.abc import Iterator

from headpatch.core.question import Context, Files, table_of
from headpatch.present.parts import Part, Words, grid
from headpatch.present.tables import failed_words
from headpatch.questions.claims.columns import CLAIMS


def view(files: Files, _: Context) -> Iterator[Part]:
    """Show each claim, what became of it, and the figure behind it."""
    table = table_of(files[CLAIMS.file])
    nulls = table.get("failed_nulls")
    failed = next(iter(nulls.dropna()), "") if nulls is not None else ""
    if failed:
        yield Words(failed_words(failed.split(";")), "terminal", strong=True)
        yield Words(failed_words(failed.split(";")), "page")
    counts = table["outcome"].value_counts()
    yield Words(
        f"Of {len(table):,} claims that the study lists: "
        f"{', '.join(f'{count:,} {name}' for name, count in counts.items())}. A claim is supported "
        "or contradicted only by something shown."
    )
    shown = table.fillna({"figure": ""})
    cells = {"claim": "claim", "outcome": "outcome", "figure": "figure"}
    yield grid("Claims", shown, cells, CLAIMS, wrapped="figure")
    yield Words(
        "Figures: mean over pairs (interval over pairs, corrected for the number of claims), as a "
        "share of the LD difference. Classes of heads are corrected over all heads. Undecided: "
        "more pairs may show it; not testable: no figure could tell."
    )
