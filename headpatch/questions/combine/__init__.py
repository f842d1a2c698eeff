"""How heads act together, and what later parts make up for when they are changed."""
