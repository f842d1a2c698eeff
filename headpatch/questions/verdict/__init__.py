"""Which heads decide, over many pairs, and what must hold for that to be believed."""
