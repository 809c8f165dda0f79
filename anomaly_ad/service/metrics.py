"""What is counted, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

import prometheus_client as prometheus

# What generate_latest writes. The library's own name for it differs between its versions.
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# Seconds; an image takes milliseconds, a full queue of large ones seconds.
_BUCKETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)


class Metrics:
    """The numbers of one service, in a registry of its own."""

    def __init__(self) -> None:
        self._registry = registry = prometheus.CollectorRegistry()
        prometheus.ProcessCollector(registry=registry)
        self.requests = prometheus.Counter(
            "anomaly_ad_requests",
            "Requests that were answered, by path and status.",
            ["path", "status"],
            registry=registry,
        )
        self.seconds = prometheus.Histogram(
            "anomaly_ad_request_seconds",
            "Time from a request's headers to the end of its answer.",
            ["path"],
            buckets=_BUCKETS,
            registry=registry,
        )
        self.images = prometheus.Counter(
            "anomaly_ad_images",
            "Images, by model and verdict: good, anomalous, or error.",
            ["model", "verdict"],
            registry=registry,
        )
        self.reloads = prometheus.Counter(
            "anomaly_ad_model_reloads",
            "Replaced model directories, by model and result: taken_up or failed.",
            ["model", "result"],
            registry=registry,
        )

    def watch(self, images: Callable[[], int], places: int) -> None:
        """Show how full the queue is."""
        accepted = "Images that have arrived and have no verdict yet"
        for name, text in (("", "now"), ("_limit", "at most")):
            gauge = prometheus.Gauge(
                f"anomaly_ad_images_accepted{name}", f"{accepted}: {text}.", registry=self._registry
            )
            gauge.set_function(images if not name else lambda: places)

    def note_reload(self, model: str, worked: bool) -> None:
        """After a model directory was replaced."""
        self.reloads.labels(model, "taken_up" if worked else "failed").inc()

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return prometheus.generate_latest(self._registry)
