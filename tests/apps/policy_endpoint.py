"""An application made of a policy by `policies.endpoint`, for a proxy."""

from gunicorn_expect import policies

app = policies.endpoint(policies.max_length(10))
