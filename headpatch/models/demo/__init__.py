"""The bundled demo model: its weights and the code that makes it. Import nothing heavy here."""
