"""Claims, and what became of them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from headpatch.core import output as results
from headpatch.core.output.files import columns_of
from headpatch.questions.verdict.saved import FOLLOWED
from headpatch.report.verdict_tables import failed_words
from headpatch.stats.judged_claims import Judged

if TYPE_CHECKING:
    import pandas

    from headpatch.core.study import Study


@dataclass(frozen=True, eq=False)
class Claims:
    """What `headpatch.claims` found.

    Attributes
    ----------
    judged
        Each claim, what became of it, and the figure behind it.
    failed_nulls
        Nulls of the verdict that failed; then no outcome can be taken at its word.
    followed
        What was measured beside the verdict: the columns of ``followed.csv``; None if nothing was.
    study
        That of the verdict, with the claims.
    by
        What judged them, for ``run.yaml``: where the verdict lies, its weights, and whether it is
        valid.
    """

    judged: tuple[Judged, ...]
    failed_nulls: tuple[str, ...]
    followed: "pandas.DataFrame | None"
    study: "Study"
    by: Mapping[str, object]

    @property
    def table(self) -> "pandas.DataFrame":
        """A row for each claim: the columns of ``claims.csv``."""
        import pandas

        found = pandas.DataFrame([asdict(one) for one in self.judged])
        return found.assign(failed_nulls=";".join(self.failed_nulls))

    @property
    def summary(self) -> str:
        """How many are supported, contradicted and not testable; then each, and why."""
        every = [one.outcome for one in self.judged]
        counts = {name: every.count(name) for name in ("supported", "contradicted", "not testable")}
        said = [f"{count:,} {name}" for name, count in counts.items()]
        lines = [f"Of {len(every):,} claims: {', '.join(said)}."]
        lines += [f"{one.outcome}: {one.claim} ({one.figure})" for one in self.judged]
        if self.failed_nulls:
            lines.insert(0, failed_words(self.failed_nulls))
        return "\n".join(lines)

    def write(self, folder: Path) -> list[str]:
        """Write ``claims.csv``, ``run.yaml`` and, where something was measured, ``followed.csv``.

        Returns
        -------
        Names of the files.
        """
        with results.staged(folder, "claims") as stage:
            results.write_columns(stage / "claims.csv", columns_of(self.table))
            if self.followed is not None:
                results.write_columns(stage / FOLLOWED, columns_of(self.followed))
            results.write_judged(stage, self.study, {**self.by, "failed_nulls": self.failed_nulls})
            return [file.name for file in stage.iterdir()]
