"""gunicorn behind a proxy, for uploads."""

import gunicorn_expect
from gunicorn_expect import policies

# With .checked, `gunicorn --check-config` looks at the expect_* settings, too.
worker_class = gunicorn_expect.Worker.checked
workers = 2
# Requests that run at once, in each worker. One that waits for its client does not count.
threads = 8
# systemd hands the socket over; without systemd:
# bind = "unix:/run/gunicorn-expect/http.socket"  # noqa: ERA001

# The peers whose X-Forwarded-Proto is trusted. "*" if only the proxy can connect, as to the unix
# socket; for TCP the addresses of the proxies.
forwarded_allow_ips = "*"
# Longer than the proxy keeps an idle connection, so that it is the proxy that closes it: nginx
# keeps it 60 s, Caddy 120 s. An idle connection costs no thread.
keepalive = 130
# The control socket would be in $HOME, where the unit forbids writing.
control_socket_disable = True
# Seconds that running uploads have when gunicorn stops or reloads; TimeoutStopSec is longer.
graceful_timeout = 60

accesslog = "-"
# The last word of a line says what became of the client's Expect.
access_log_format = (
    '%({x-forwarded-for}i)s "%(r)s" %(s)s %(b)s %(M)sms %({gunicorn_expect.expectation}e)s'
)

# Before the application is called: at most 5 GiB, with a Content-Length or chunked.
expect_policy = policies.max_length(5 * 1024**3)
expect_body_timeout = 30
expect_min_rate = 240
expect_linger = 30
expect_linger_idle = 2
