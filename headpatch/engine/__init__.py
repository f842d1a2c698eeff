"""The only room that touches a running model: record, edit and cut, plainly or all at once."""

import headpatch.models  # noqa: F401  says so in one line if transformers does not load
