"""hgweb leaves it to the server to authenticate: here a policy does."""

from gunicorn_expect.policies import basic, passwords

expect_policy = basic(passwords({"ada": "letmein"}), realm="hg")
