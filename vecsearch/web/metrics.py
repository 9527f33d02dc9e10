"""Counts and times, in the form that Prometheus reads."""

from time import perf_counter

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
# Of a search, which takes milliseconds, and of an encoder, which takes a second when it is busy.
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """One server's metrics, in a registry of their own."""

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
            "Seconds from a request's arrival to its answer's end",
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
        """Note that the encoder has embedded a batch."""
        self._pictures.inc(size)
        self._encoder_seconds.observe(seconds)

    def on_answer(self, scope: Scope, status: int, seconds: float) -> None:
        """Note that a request was answered; what fits no route is one route."""
        route = getattr(scope.get("route"), "path", "none")
        # A caller may call a method anything.
        method = scope["method"] if scope["method"] in METHODS else "other"
        self._requests.labels(method, route, status).inc()
        self._seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """Return everything, as Prometheus reads it."""
        return generate_latest(self._registry)


class Measured:
    """An application whose answers are measured."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as ASGI has it."""
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
