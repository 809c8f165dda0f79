"""Keras layers that only score, built from finished arrays; and the linear maps they use.

Nothing here learns: what layers hold comes from `statistics`.
"""
