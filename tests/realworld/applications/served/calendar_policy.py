"""Radicale checks its max_content_length only in its own server: here a policy limits bodies."""

from gunicorn_expect.policies import max_length

expect_policy = max_length(20_000_000)
