"""What `import headpatch as hp` offers beyond the rooms below: one call for each question.

Nothing here measures anything: each function makes the analysis from its parts, and returns what it
found as tables (pandas), tensors and figures. Import the names from `headpatch` itself.
"""
