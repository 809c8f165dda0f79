"""The report: what a model does on a set of images, as one page that opens from disk."""
