"""Keras layers that score, built from finished arrays. Importing them imports Keras."""
