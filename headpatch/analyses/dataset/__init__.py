"""Walking over many pairs: which pass the gate, what they share, means with intervals."""
