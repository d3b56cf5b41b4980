"""The upload service of the examples, whose word a test can hold back."""

from apps.switchboard import tell
from examples.flask_upload import app as service


def app(environ, start_response):
    if held := environ.get("HTTP_X_HELD"):
        tell(f"set {held}")
        tell("wait killed")
    return service(environ, start_response)
