"""Counters and histograms for Prometheus."""

from time import perf_counter

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
# A search takes milliseconds; a busy encoder takes a second.
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """The metrics of one server, in their own registry."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self._registry = registry
        self._requests = Counter(
            "vecsearch_requests",
            "Requests by route and status",
            ["method", "route", "status"],
            registry=registry,
        )
        self._seconds = Histogram(
            "vecsearch_request_seconds",
            "Seconds from the arrival of a request to the end of its response",
            ["route"],
            buckets=BUCKETS,
            registry=registry,
        )
        self.search_seconds = Histogram(
            "vecsearch_search_seconds",
            "Seconds that the database took to find the hits",
            buckets=BUCKETS,
            registry=registry,
        )
        self._encoder_seconds = Histogram(
            "vecsearch_encoder_seconds",
            "Seconds that the encoder took for a batch",
            buckets=BUCKETS,
            registry=registry,
        )
        self._pictures = Counter(
            "vecsearch_encoder_pictures", "Pictures embedded", registry=registry
        )

    def on_batch(self, size: int, seconds: float) -> None:
        """Record a batch that was embedded."""
        self._pictures.inc(size)
        self._encoder_seconds.observe(seconds)

    def on_answer(self, scope: Scope, status: int, seconds: float) -> None:
        """Record a response; requests that match no route share one label."""
        route = getattr(scope.get("route"), "path", "none")
        # A caller may invent methods.
        method = scope["method"] if scope["method"] in METHODS else "other"
        self._requests.labels(method, route, status).inc()
        self._seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """Return all metrics in the text format of Prometheus."""
        return generate_latest(self._registry)


class Measured:
    """Middleware that measures responses."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle an ASGI request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = perf_counter()
        status = 500

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, sent)
        finally:
            self._metrics.on_answer(scope, status, perf_counter() - started)
