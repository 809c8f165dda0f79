"""What the statistical methods learn, in plain numpy: it streams, merges and can be taken apart."""
