"""Object storage: moto's S3 server, and the check of presigned URLs that moto leaves out."""

import urllib.parse

from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from realworld.s3_server import app as moto

#: As in `realworld.storage`.
SIGNER = S3SigV4QueryAuth(Credentials("access", "secret"), "s3", "us-east-1")


def app(environ, start_response):
    refusal = refusal_of(environ) if "X-Amz-Signature=" in environ["QUERY_STRING"] else None
    if refusal is None:
        return moto(environ, start_response)
    status, code = refusal
    body = f"<Error><Code>{code}</Code></Error>".encode()
    start_response(status, [("Content-Length", str(len(body)))])
    return [body]


def refusal_of(environ):
    """Return the status and the code by which S3 refuses this presigned request, if it does.

    https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
    """
    if "HTTP_AUTHORIZATION" in environ:
        return "400 Bad Request", "InvalidArgument"  # "Only one auth mechanism allowed"
    query = dict(urllib.parse.parse_qsl(environ["QUERY_STRING"]))
    signature = query.pop("X-Amz-Signature")
    if signature != signature_of(environ, query):
        return "403 Forbidden", "SignatureDoesNotMatch"
    return None


def signature_of(environ, query):
    names = {"content-length": "CONTENT_LENGTH", "host": "HTTP_HOST"}
    signed = query["X-Amz-SignedHeaders"].split(";")
    request = AWSRequest(
        environ["REQUEST_METHOD"],
        "http://{}{}?{}".format(
            environ["HTTP_HOST"],
            environ["RAW_URI"].partition("?")[0],
            urllib.parse.urlencode(query, quote_via=urllib.parse.quote),
        ),
        headers={name: environ.get(names[name], "") for name in signed},
    )
    request.context["timestamp"] = query["X-Amz-Date"]
    text = SIGNER.string_to_sign(request, SIGNER.canonical_request(request))
    return SIGNER.signature(text, request)
