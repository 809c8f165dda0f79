"""Keras layers that only score, built from finished arrays; each file has one.

Nothing here learns: what layers hold comes from `statistics`.
"""
