"""What a run leaves behind: tables and tensors with their provenance, whole or not at all."""
