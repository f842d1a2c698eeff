"""The report as one HTML file: from a folder of results, without running a model.

The figures are drawn by Plotly (its script lies in the ``plotly`` package, under the MIT licence).
What was weighed, with the sizes of the scripts:

- *Plotly 7*, 4.8 MB (gzip 2.0 MB, unpacked by the browser's ``DecompressionStream``, 2023 and
  later): draws SVG, sharp in print; tells hover and click as plain events, which linked views are
  made of; follows a change of theme at run time.
- *Bokeh 3.9*, 1.3 MB: links views by itself, but draws on a canvas (coarse in print), a dark theme
  means changing every model, and it brings a web server (tornado).
- *Altair 6*: a page that works offline needs another 20 MB package.

None can be worked with the keyboard or read aloud: the maps' keys and spoken texts, the table, the
tooltip and the overlays are the page's own script.
"""

from headpatch.reports.page import write

__all__ = ["write"]
