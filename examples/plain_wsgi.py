import hashlib

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
    digest, size = hashlib.sha256(), 0
    while piece := environ["wsgi.input"].read(64 * 1024):
        digest.update(piece)
        size += len(piece)
    if size < announced:
        return answer("400 Bad Request")  # the client left before the end
    return answer("201 Created", digest.hexdigest().encode() + b"\n")
