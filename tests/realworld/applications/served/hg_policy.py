"""hgweb leaves authentication to the server: here a policy authenticates."""

from gunicorn_expect.policies import basic, passwords

expect_policy = basic(passwords({"ada": "letmein"}), realm="hg")
