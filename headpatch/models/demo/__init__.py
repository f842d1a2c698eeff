"""The bundled model: weights, tokenizer and card. The repository's `training/` made it."""
