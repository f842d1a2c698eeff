"""What cutting attention between named positions does to the answer."""
