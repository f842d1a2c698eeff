"""Hand a model to other tools, and cross-check against them."""
