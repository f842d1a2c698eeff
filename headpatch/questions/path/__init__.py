"""Where the information about the object is, and when it moves."""
