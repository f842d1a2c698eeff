"""Print how large headpatch is, beside what it should be: lines, files, modules, functions.

A function's lines are those of its definition, docstring and blank lines included, decorators not.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median, quantiles

ROOT = Path(__file__).resolve().parents[1]
LIMITS = {
    "lines in headpatch/": 24_000,
    "files in headpatch/": 200,
    "longest module": 350,
    "median function": 8,
    "90% of functions": 30,
    "longest function": 80,
    "lines in tests/": 19_000,
}


def modules(folder: str) -> dict[Path, str]:
    """Read every Python file of a folder."""
    return {
        path: path.read_text(encoding="utf-8") for path in sorted((ROOT / folder).rglob("*.py"))
    }


def functions(sources: dict[Path, str]) -> Iterator[tuple[int, str]]:
    """Give the length and place of every function."""
    for path, source in sources.items():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                yield length, f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"


def main() -> int:
    """Print the table; return how many figures are above their limit."""
    package, tests = modules("headpatch"), modules("tests")
    lines = {path: source.count("\n") for path, source in package.items()}
    sizes = sorted(functions(package))
    longest = max(lines, key=lambda path: lines[path])
    measured = {
        "lines in headpatch/": (sum(lines.values()), ""),
        "files in headpatch/": (len(lines), ""),
        "longest module": (lines[longest], str(longest.relative_to(ROOT))),
        "median function": (median(length for length, _ in sizes), ""),
        "90% of functions": (quantiles([length for length, _ in sizes], n=10)[-1], ""),
        "longest function": sizes[-1],
        "lines in tests/": (sum(source.count("\n") for source in tests.values()), ""),
    }
    above = 0
    for name, limit in LIMITS.items():
        size, where = measured[name]
        above += size > limit
        mark = "above" if size > limit else "ok"
        print(f"{name:22}{size:>9,.0f}  at most {limit:>6,}  {mark:6}{where}")
    return above


if __name__ == "__main__":
    above = main()
    sys.exit(bool(above) if "--strict" in sys.argv else 0)
