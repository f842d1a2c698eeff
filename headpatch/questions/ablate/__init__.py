"""What named heads do to the Yes/No answer: one pair, many pairs."""
