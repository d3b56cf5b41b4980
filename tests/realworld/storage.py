"""Object storage for the tests, and what crosses to it."""

import contextlib
import hashlib
import urllib.error
import urllib.request

from realworld.counting import CountingRelay
from support import PATIENCE
from support.server import Server

BUCKET = "uploads"


class Storage(contextlib.ExitStack):
    """An S3 server with an empty bucket, behind a relay.

    ``hold``: keep a 100 back for so many seconds, as `CountingRelay` does.
    """

    def __init__(self, *, hold=0):
        super().__init__()
        server = self.enter_context(Server(app="realworld.storage_server:app"))
        self.relay = self.enter_context(CountingRelay(server, hold=hold))
        self._address = "http://{}:{}".format(*server.address)
        self._request("PUT", BUCKET)
        #: The environment of a program that uses the storage by boto3.
        self.account = {
            "AWS_ACCESS_KEY_ID": "access",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL_S3": "http://{}:{}".format(*self.relay.address),
            "UPLOAD_BUCKET": BUCKET,
        }

    def stored(self, key):
        """Return the length and the digest of an object, or None if there is none."""
        try:
            body = self._request("GET", f"{BUCKET}/{key}")
        except urllib.error.HTTPError as error:
            error.close()
            if error.code != 404:
                raise
            return None
        return f"{len(body)}:{hashlib.sha256(body).hexdigest()}"

    def _request(self, method, path):
        # moto answers requests that have any signature, and does not check it.
        signed = {"Authorization": "AWS4-HMAC-SHA256 Credential=access/1/us-east-1/s3/aws4_request"}
        request = urllib.request.Request(f"{self._address}/{path}", None, signed, method=method)
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.read()
