"""Pages for a browser."""

from apps.routes import route


def page(start_response, html, status="200 OK"):
    start_response(status, [("Content-Type", "text/html"), ("Content-Length", str(len(html)))])
    return [html.encode()]


@route("/upload-page")
def upload_page(environ, start_response):
    return page(
        start_response,
        '<!DOCTYPE html><title>Upload</title><link rel="icon" href="data:,">'
        f'<form method="post" action="/refuse-with-page?{environ["QUERY_STRING"]}"'
        ' enctype="multipart/form-data"><input type="file" name="file"></form>',
    )


@route("/refuse-with-page")
def refuse_with_page(environ, start_response):
    """Refuse with a page of this size, which says why at its end."""
    begin = '<!DOCTYPE html><title>Refused</title><link rel="icon" href="data:,">'
    end = "<h1>Too large</h1>"
    size = int(environ["QUERY_STRING"])
    return page(start_response, begin.ljust(size - len(end)) + end, "413 Content Too Large")
