"""What claims needed beside a verdict, kept in ``followed.csv`` so that it is measured once.

Each row says, by hashes, of which verdict and what rows it is one, and with which pictures it was
measured. A row of another verdict, one that was changed since, or of pictures that are no longer
what they were, is not used.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headpatch import __version__
from headpatch.errors import InputError
from headpatch.pairs.manifest import Entry
from headpatch.questions.verdict.followed import COLUMNS, from_table, pairs_followed
from headpatch.questions.verdict.saved import SavedVerdict, read_followed

if TYPE_CHECKING:
    import pandas

    from headpatch.core.study import Study

_DECIDES = {"answers", "prompt", "seed", "force", "verdict", "cut", "draw", "vision"}
_WHERE = {"device", "dtype", "device_map", "quantize", "allow_unused_weights"}
_GATE = ["pair", "region", "question", "passed"]


@dataclass(frozen=True)
class Basis:
    """What figures beside a verdict hang on.

    Attributes
    ----------
    verdict
        Hash of how the verdict was run, of its weights, of its pairs and how they did at the gate,
        of where the model runs now, and of the version of headpatch.
    pictures
        Hash of the pictures on which claims are followed up; empty if none are there to look at.
        Those that were drawn are not: they are drawn again from what `verdict` covers.
    """

    verdict: str
    pictures: str

    @classmethod
    def of(
        cls, saved: SavedVerdict, study: "Study", weights: str, entries: Sequence[Entry]
    ) -> "Basis":
        """Work it out.

        Parameters
        ----------
        study
            As the verdict was run, on the device where claims are followed up.
        weights
            Of the verdict's model.
        entries
            Its pairs; none if they are not there.
        """
        content = {
            "study": study.model_dump(
                mode="json", include=_DECIDES | _WHERE, exclude={"draw": {"folder"}}
            ),
            "weights": weights,
            "gate": saved.gate[_GATE].astype(str).to_numpy().tolist(),
            "headpatch": __version__,
        }
        verdict = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
        return cls(_word(verdict.hexdigest()), _pictures(saved, study, entries))

    def sign(self, table: "pandas.DataFrame") -> "pandas.DataFrame":
        """Return rows of ``followed.csv``, saying of what they are."""
        return table.assign(verdict=self._signatures(table), pictures=self.pictures)

    def own(self, table: "pandas.DataFrame") -> "pandas.DataFrame":
        """Return those rows that are of this verdict, and of pictures that have not changed.

        What was measured counts as a whole: if one of its rows was changed or is missing, none of
        them is taken.
        """
        if not {*COLUMNS, "verdict", "pictures"} <= set(table.columns):  # of an earlier headpatch
            return table.iloc[:0]
        mine = table["verdict"] == self._signatures(table)
        if self.pictures:
            mine &= table["pictures"] == self.pictures
        return table[mine & ~table["what"].isin(set(table["what"][~mine]))]

    def _signatures(self, table: "pandas.DataFrame") -> list[str]:
        """Hash, for each row, all rows of what was measured with it, and the verdict."""
        plain = table[list(COLUMNS)].astype(object).where(table[list(COLUMNS)].notna(), "")
        digests: dict[str, Any] = {}
        for what, *cells, value, why_not in plain.itertuples(index=False):
            row = what, *cells, value if isinstance(value, str) else f"{value:.7g}", why_not
            digest = digests.setdefault(what, hashlib.sha256(self.verdict.encode()))
            digest.update(json.dumps(row).encode())
        return [_word(digests[what].hexdigest()) for what in plain["what"]]


def recalled(saved: SavedVerdict, basis: Basis, folder: Path | None) -> SavedVerdict:
    """Return a verdict with what was measured beside it: in its own folder, and in another.

    Parameters
    ----------
    folder
        Where an earlier run may have left its ``followed.csv``; None is nowhere else.
    """
    import pandas

    tables = [] if saved.followed is None else [saved.followed]
    if folder is not None and (more := read_followed(folder)) is not None:
        tables.append(more)
    found = [basis.own(table) for table in tables]
    found = [table for table in found if len(table)]
    if not found:
        return replace(saved, evidence=replace(saved.evidence, followed={}), followed=None)
    first, *others = found
    for more in others:  # each is measured once, whole
        first = pandas.concat([first, more[~more["what"].isin(set(first["what"]))]])
    return replace(
        saved, evidence=replace(saved.evidence, followed=from_table(first)), followed=first
    )


def followed_pairs(saved: SavedVerdict, study: "Study", entries: Sequence[Entry]) -> list[Entry]:
    """Return the pairs of a verdict on which claims are followed up.

    Raises
    ------
    InputError
        If `entries` are not those that the verdict ran.
    """
    there = {(one.name, one.region.name, one.question): one for one in entries}
    gate = saved.gate if saved.study.force else saved.gate[saved.gate["passed"]]
    run = list(zip(gate["pair"], gate["region"], gate["question"], strict=True))
    if gone := [name for name, *rest in run if (name, *rest) not in there]:
        raise InputError(
            "--pairs",
            f"pair {gone[0]} of the verdict is not there, or has another question or region",
            f"the {len(run):,} pairs that the verdict ran",
            "Run the verdict again over the pairs that there are.",
        )
    return list(pairs_followed(study, [there[one] for one in run]))


def _pictures(saved: SavedVerdict, study: "Study", entries: Sequence[Entry]) -> str:
    if not entries:
        return ""
    try:
        chosen = followed_pairs(saved, study, entries)
        files = [
            hashlib.sha256(path.read_bytes()).hexdigest()
            for entry in chosen
            for path in (entry.with_path, entry.without_path)
        ]
    except (InputError, OSError):
        return "changed"  # no figure was measured with such
    return _word(hashlib.sha256(json.dumps(files).encode()).hexdigest())


def _word(digest: str) -> str:
    """Shorten a digest; a table reads it back as text, whatever its digits."""
    return f"sha256:{digest[:16]}"
