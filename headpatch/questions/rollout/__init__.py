"""From a token of the answer back to the patches of the picture."""
