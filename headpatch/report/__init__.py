"""Figures and pages made from saved results; nothing here runs a model.

Import from :mod:`headpatch.report.plots`. matplotlib is imported when a figure is drawn, not
before.
"""
