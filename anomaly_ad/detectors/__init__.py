"""The methods: one file each, listed in `registry`, all of the shape that `base` describes."""
