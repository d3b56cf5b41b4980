LIMIT = 5 * 1024**3


def app(environ, start_response):
    def answer(status, body=b"", *headers):
        start_response(status, [*headers, ("Content-Length", str(len(body)))])
        return [body]

    # To refuse, answer: the body is never sent.
    if environ.get("HTTP_AUTHORIZATION") != "Bearer letmein":
        return answer("401 Unauthorized", b"", ("WWW-Authenticate", "Bearer"))
    announced = int(environ.get("CONTENT_LENGTH") or 0)
    if announced > LIMIT:
        return answer("413 Content Too Large")

    # To accept, read: the first read sends 100 Continue.
    size = 0
    while size <= LIMIT and (piece := environ["wsgi.input"].read(64 * 1024)):
        size += len(piece)  # and here the piece is stored
    if size > LIMIT:  # a chunked body does not announce its length
        return answer("413 Content Too Large")
    return answer("201 Created", b"%d bytes\n" % size)
