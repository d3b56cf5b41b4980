"""gunicorn in a container, behind a proxy in another one."""

import os

import gunicorn_expect
from gunicorn_expect.policies import admission, first, max_length

# With .checked, `gunicorn --check-config` looks at the expect_* settings, too.
worker_class = gunicorn_expect.Worker.checked
workers = int(os.environ.get("WEB_CONCURRENCY", "3"))
# Requests that run at once, in each worker. One that waits for its client does not count.
threads = 8
bind = "0.0.0.0:8000"

# Workers show that they are alive by touching a file. /dev/shm is memory in every container; on
# its other file systems a busy disk can make a worker look dead.
worker_tmp_dir = "/dev/shm"  # noqa: S108  not a file of ours in a shared folder
# The control socket needs a writable file system, and nothing uses it here.
control_socket_disable = True

# Only the proxy reaches this port, so its X-Forwarded-Proto is trusted.
forwarded_allow_ips = "*"
# Longer than the proxy keeps an idle connection, so that it is the proxy that closes it: nginx
# keeps it 60 s, HAProxy and Envoy as configured. An idle connection costs no thread.
keepalive = 130
# Seconds that running uploads have when the container stops. Docker's stop_grace_period and the
# terminationGracePeriodSeconds of Kubernetes are longer.
graceful_timeout = 60

accesslog = "-"
# The last word of a line says what became of the client's Expect.
access_log_format = (
    '%({x-forwarded-for}i)s "%(r)s" %(s)s %(b)s %(M)sms %({gunicorn_expect.expectation}e)s'
)

# Seconds. A container that is killed does not release its slots: they are free after this time.
LONGEST_UPLOAD = 900

# Before the application is called: at most 5 GiB, with a Content-Length or chunked, and at most
# UPLOAD_AT_ONCE uploads at once, in all workers of all containers together.
expect_policy = first(
    max_length(5 * 1024**3),
    admission(
        int(os.environ.get("UPLOAD_AT_ONCE", "100")),
        storage=os.environ["UPLOAD_STORAGE"],
        lease=LONGEST_UPLOAD,
    ),
)
