"""The report: one HTML page with counts, curves and pictures, which opens from disk.

`page` writes it and `thumbnails` keeps the pictures. `probe` runs as a process of its own, whose
memory it measures, so nothing is imported here.
"""
