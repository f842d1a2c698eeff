"""What a campaign counts and prints: its faults as they come, at its end a table of counts."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence


class Tally:
    """Counts of a campaign, a row a kind; the last column, ``faulty``, need not be named."""

    def __init__(self, what: str, columns: Sequence[str]) -> None:
        self._what, self._columns = what, (*columns, "faulty")
        self._rows: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.faults = 0

    def add(self, row: str, columns: Iterable[str], faults: Sequence[str], how: str) -> None:
        """Count one trial in some columns; print what is wrong with it and how it came about."""
        self._rows[row].update([*columns, "faulty"] if faults else columns)
        self.faults += len(faults)
        for fault in faults:
            print(f"fault: {row}, {how}: {fault}", flush=True)

    def show(self) -> None:
        """Print the table, and below it the sums."""
        total: Counter[str] = Counter()
        for counts in self._rows.values():
            total += counts
        print(f"{self._what:22}" + "".join(f"{name:>15}" for name in self._columns))
        for name, counts in {**self._rows, "all": total}.items():
            print(f"{name:22}" + "".join(f"{counts[column]:15}" for column in self._columns))
        print(f"{self.faults} faults")
