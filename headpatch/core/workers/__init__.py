"""Several processes that measure pairs together, through Ray: see `headpatch.core.workers.crew`."""
