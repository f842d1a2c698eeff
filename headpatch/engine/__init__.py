"""The only room that touches a running model: record, edit and cut, plainly or all at once."""
