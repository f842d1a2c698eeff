"""How results are shown: tables, figures and parts of a page, whatever the question."""
