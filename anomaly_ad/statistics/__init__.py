"""Statistics in plain numpy, without TensorFlow: updated in batches, merged, taken apart, stored.

Sums are float64 over centred data; nothing here knows images or networks.
"""
