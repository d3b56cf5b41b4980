"""The application behind the proxies: it refuses, accepts, or sends an interim response."""


def app(environ, start_response):
    """Refuse ``/refuse`` unread; send the interim response that the path names, and read."""
    path = environ["PATH_INFO"].removeprefix("/")
    if path == "refuse":
        start_response("401 Unauthorized", [("Content-Length", "0")])
        return [b""]
    if path.isdigit():
        environ["gunicorn_expect.expectation"].inform(int(path), [("Link", "</x>")])
    while environ["wsgi.input"].read(65536):
        pass
    start_response("201 Created", [("Content-Length", "0")])
    return [b""]
