"""The report as one HTML file: from a folder of results, without running a model.

`page` writes the file, `folder` finds the runs and `part` reads them, `sections` holds a module for
each part of the page, `charts` what their figures are made of, ``templates`` HTML, styles, scripts.

The figures are drawn by Plotly (its script lies in the ``plotly`` package, under the MIT licence).
What was weighed, with the sizes of the scripts:

- *Plotly 7*, 4.8 MB: maps, scatter and lines are drawn as SVG (sharp in print), it tells hover and
  click as plain events, which is what linked views are made of, and it follows a change of theme
  at run time. Compressed (gzip) it takes 2.0 MB of the file's 6, and the browser's own
  ``DecompressionStream`` (2023 and later) unpacks it. A browser without that shows everything but
  the figures.
- *Bokeh 3.9*, 1.3 MB: smaller, and links views by itself, but draws on a canvas (coarse in print),
  restyling for a dark theme means changing every model, and it brings a web server (tornado).
- *Altair 6*: its package does not hold its script; a page that works offline needs another 20 MB
  package to make it.

None of them can be worked with the keyboard or read aloud, whatever is chosen: the maps' keys and
spoken texts, the table, the tooltip and the overlays are the page's own script, which is small.
"""

from headpatch.report.html.page import Written, write

__all__ = ["Written", "write"]
