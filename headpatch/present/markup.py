"""Tables for a paper: a view's tables as Markdown, and as LaTeX for the package booktabs."""

from typing import Final, Literal, TypeAlias

from headpatch.present.parts import Grid

Markup: TypeAlias = Literal["markdown", "latex"]

_LATEX: Final = str.maketrans(
    {
        "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
        "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
        "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
        "→": r"$\rightarrow$", "±": r"$\pm$", "×": r"$\times$", "δ": r"$\delta$", "ρ": r"$\rho$",
        "α": r"$\alpha$", "≤": r"$\leq$", "≥": r"$\geq$", "−": "$-$", "–": "--", "…": r"\dots{}",
    }
)  # fmt: skip
_MARKDOWN: Final = str.maketrans({"|": r"\|", "\n": " ", "*": r"\*", "_": r"\_", "`": r"\`"})


def written(grid: Grid, markup: Markup) -> str:
    """Write a table."""
    return _as_latex(grid) if markup == "latex" else _as_markdown(grid)


def _as_markdown(grid: Grid) -> str:
    def line(cells: tuple[str, ...]) -> str:
        return f"| {' | '.join(cell.translate(_MARKDOWN) for cell in cells)} |"

    ruler = " | ".join("---:" if numeric else "---" for numeric in grid.numeric)
    title = [f"**{grid.title.translate(_MARKDOWN)}**", ""] if grid.title else []
    return "\n".join([*title, line(grid.headings), f"| {ruler} |", *map(line, grid.rows)]) + "\n"


def _as_latex(grid: Grid) -> str:
    def line(cells: tuple[str, ...]) -> str:
        texts = (_signed(cell) for cell in cells)
        return f"    {' & '.join(texts)} \\\\"

    columns = "".join("r" if numeric else "l" for numeric in grid.numeric)
    return "\n".join(
        [
            r"\begin{table}",
            r"  \centering",
            f"  \\caption{{{' '.join(grid.title.split()).translate(_LATEX)}}}",
            f"  \\begin{{tabular}}{{{columns}}}",
            r"    \toprule",
            line(grid.headings),
            r"    \midrule",
            *map(line, grid.rows),
            r"    \bottomrule",
            r"  \end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _signed(cell: str) -> str:
    """Write a cell: the signs of its numbers as a formula's, at the same length each."""
    words = " ".join(cell.split()).split(" ")
    return " ".join(
        f"${word[0]}$" + word[1:].translate(_LATEX)
        if word[:1] in "+-" and word[1:2].isdigit()
        else word.translate(_LATEX)
        for word in words
    )
