"""Pure maths on numpy arrays and tables; nothing here knows a model, a file or a picture."""
