"""An application that reads the whole body, and answers with it and with the request's environ."""

import json


def app(environ, start_response):
    body = environ["wsgi.input"].read()
    found = {
        name: value
        for name, value in environ.items()
        if name.startswith(("HTTP_", "CONTENT_", "REQUEST_", "SERVER_PROTOCOL", "QUERY_", "RAW_"))
        or name in ("PATH_INFO", "SCRIPT_NAME", "wsgi.url_scheme")
    }
    answer = json.dumps([found, body.decode("latin-1")], sort_keys=True).encode()
    start_response("200 OK", [("Content-Length", str(len(answer)))])
    return [answer]
