"""The policy, for the gunicorn that takes the uploads and for the proxy that asks first.

Start two gunicorns, so that only the proxy reaches the endpoint, and no upload delays its answers::

    export UPLOAD_TOKEN=letmein
    gunicorn -k gunicorn_expect.Worker -b 127.0.0.1:8001 --threads 4 uploads:may_upload
    GUNICORN_EXPECT_POLICY=uploads:policy gunicorn -c gunicorn.conf.py -b 127.0.0.1:8000 app:app
"""

import os

from gunicorn_expect import policies

policy = policies.first(
    policies.bearer(policies.one_of(os.environ["UPLOAD_TOKEN"])),
    policies.max_length(5 * 1024**3),
)
may_upload = policies.endpoint(policy)
