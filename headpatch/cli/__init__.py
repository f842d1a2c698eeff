"""The command line: flags become a study, the study an analysis, the analysis tables and files.

One file a verb. Nothing heavy is imported before a verb runs, so ``--help`` comes up at once.
"""

from headpatch.cli import claims, compare, pairs, papers, report, run  # noqa: F401  they add verbs
from headpatch.cli.app import app, main
from headpatch.cli.derive import add
from headpatch.questions import VERBS

for verb in VERBS:
    if not verb.own_command:
        add(verb)

__all__ = ["app", "main"]
