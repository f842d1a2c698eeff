"""One file a way in which image tokens map to places in the picture."""
