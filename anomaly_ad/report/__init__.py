"""The report: one HTML page with counts, curves and pictures, which opens from disk.

`page` writes it and `thumbnails` keeps the pictures; `review` is about training images, and
`comparison` about methods.
"""
