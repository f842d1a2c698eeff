"""What every head does to the Yes/No answer: one pair, many pairs, and estimates beside it."""
