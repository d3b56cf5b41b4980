"""Applications with Sentry's SDK, whose alerts are printed and not sent.

``WATCHED`` in the environment lists their modules; the query names the one that answers.
"""

import os
import pkgutil

import sentry_sdk
import sentry_sdk.transport


class Printed(sentry_sdk.transport.Transport):
    """Print a line for each event."""

    def capture_envelope(self, envelope):
        event = envelope.get_event()
        if event is not None:
            [*_, error] = event.get("exception", {}).get("values") or [{"type": "no exception"}]
            print(f"ALERT: {error['type']}", flush=True)


sentry_sdk.init(dsn="http://key@localhost/1", transport=Printed)
APPS = {name: pkgutil.resolve_name(f"{name}:app") for name in os.environ["WATCHED"].split()}


def app(environ, start_response):
    return APPS[environ["QUERY_STRING"]](environ, start_response)
