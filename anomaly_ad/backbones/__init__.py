"""Pretrained networks whose features methods learn from, and where their weights come from.

Nothing here knows a method; importing it loads Keras.
"""
