"""Applications made of policies by `policies.endpoint`, for a proxy."""

from apps.deciding import policy
from gunicorn_expect import policies

app = policies.endpoint(policies.max_length(10))
deciding = policies.endpoint(policy)
