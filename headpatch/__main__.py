"""``python -m headpatch``."""

from headpatch.cli import main

main()
