"""Inspection as a service: HTTP in front of finished models, and a page. Extra `serve`."""
