"""Stage 3, runtime: a detector's graph becomes an OpenVINO model, and is run."""
