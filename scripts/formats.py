"""Write attention_data/README.md's tables of columns, and configs/study.schema.json, from the code.

The columns of a verb's file stand between ``<!-- columns of VERB FILE -->`` and ``<!-- end -->``.
"""

import re
import sys
from pathlib import Path

from headpatch.core.study.study import Study
from headpatch.questions import VERBS

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "attention_data" / "README.md"
SCHEMA = ROOT / "configs" / "study.schema.json"


def renewed(text: str) -> str:
    """Return the README with every table of columns as the code has it.

    Raises
    ------
    ValueError
        If a file that a question writes has no place in it.
    """
    for verb, schema in ((one, schema) for one in VERBS for schema in one.schemas):
        place = f"columns of {verb.name} {schema.file}"
        start, end = f"<!-- {place} -->", "<!-- end -->"
        pattern = re.compile(f"{re.escape(start)}.*?{re.escape(end)}", re.DOTALL)
        if not pattern.search(text):
            raise ValueError(f"{README.name} has no place for the {place}")
        table = f"{start}\n{schema.markdown()}\n{end}"
        text = pattern.sub(lambda _, table=table: table, text)
    return text


if __name__ == "__main__":
    text = README.read_text(encoding="utf-8")
    if "--check" in sys.argv:
        sys.exit(
            text != renewed(text)
            or SCHEMA.read_text(encoding="utf-8") != f"{Study.schema_text()}\n"
        )
    README.write_text(renewed(text), encoding="utf-8")
    SCHEMA.write_text(f"{Study.schema_text()}\n", encoding="utf-8")
