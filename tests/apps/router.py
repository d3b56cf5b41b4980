"""The applications that the wire tests talk to, one for each path."""

from apps import (  # noqa: F401  each adds its paths
    answering,
    broken_bodies,
    expectation,
    failing,
    files,
    informing,
    pages,
    reading,
    refusing,
    seen,
    swift,
    threads,
    waiting_for_events,
)
from apps.routes import ROUTES
from apps.seen import SEEN


def app(environ, start_response):
    SEEN.append(f"{environ['REQUEST_METHOD']} {environ['RAW_URI']}")
    return ROUTES[environ["PATH_INFO"]](environ, start_response)
