"""The upload service of the examples, whose response a test can delay."""

from apps.switchboard import tell
from examples.flask_upload import app as service


def app(environ, start_response):
    if held := environ.get("HTTP_X_HELD"):
        tell(f"set {held}")
        tell("wait killed")
    return service(environ, start_response)
