"""The endpoint that a proxy asks: the policy of the example, and refusals that the query names."""

import urllib.parse

from examples.deploy.asking_first.uploads import policy
from gunicorn_expect import Refuse, policies

HEADERS = [("Retry-After", "5"), ("Allow", "PUT"), ("Accept", "image/*")]


def named(environ):
    query = urllib.parse.parse_qs(environ["QUERY_STRING"])
    return Refuse(query["refuse"][0], HEADERS) if "refuse" in query else None


app = policies.endpoint(policies.first(named, policy))
