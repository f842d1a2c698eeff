"""Tests that take minutes: all of them are run with ``HEADPATCH_LONG=all``, some by `make test`."""

import os

import pytest

ALL = os.environ.get("HEADPATCH_LONG") == "all"
long = pytest.mark.skipif(not ALL, reason="takes minutes: HEADPATCH_LONG=all runs it")
