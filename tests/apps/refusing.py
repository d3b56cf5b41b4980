"""Refusing without reading."""

from apps.routes import answer, query, route


@route("/refuse")
def refuse(environ, start_response):
    start_response(query(environ).get("status", "401 Unauthorized"), [("Content-Length", "0")])
    return []


@route("/refuse-with-body")
def refuse_with_body(environ, start_response):
    return answer(start_response, b"too large", "413 Content Too Large")


@route("/refuse-without-length")
def refuse_without_length(environ, start_response):
    start_response("401 Unauthorized", [("WWW-Authenticate", "Bearer")])
    how = environ["QUERY_STRING"]
    if how == "generator":
        return iter(())
    if how == "empty-items":
        return [b"", b""]
    return []


@route("/refuse-by-write")
def refuse_by_write(environ, start_response):
    write = start_response("403 Forbidden", [("Content-Length", "2")])
    write(b"no")
    environ["wsgi.input"].read(0)
    return []


@route("/refuse-twice")
def refuse_twice(environ, start_response):
    """Replace the response before its first byte, as error handlers do."""
    start_response("200 OK", [("X-Said", "first")])
    try:
        raise LookupError
    except LookupError as error:
        start_response(
            "503 Service Unavailable",
            [("Content-Length", "0"), ("X-Said", "second")],
            (LookupError, error, error.__traceback__),
        )
    return []


@route("/refuse-at-length")
def refuse_at_length(environ, start_response):
    """Refuse without reading, with a body of as many bytes as the query says, in one item."""
    return answer(start_response, bytes(int(environ["QUERY_STRING"])), "413 Content Too Large")


@route("/keep-alive-please")
def keep_alive_please(environ, start_response):
    start_response(
        "401 Unauthorized", [("Content-Length", "0"), ("Connection", environ["QUERY_STRING"])]
    )
    return []


@route("/keywords")
def keywords(environ, start_response):
    start_response(status="403 Forbidden", headers=[("Content-Length", "0")], exc_info=None)
    return []
