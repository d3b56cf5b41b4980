"""The settings of gunicorn that change how it parses a request: each alone, and several at once."""

import importlib.util
import random

PARSERS = ["python", "fast"] if importlib.util.find_spec("gunicorn_h1c") else ["python"]

#: By setting, the values other than its default.
VALUES = {
    "forwarded_allow_ips": ["*", "10.0.0.0/8", ""],
    "secure_scheme_headers": [{}, {"X-SSL": "on", "X_FORWARDED_PROTO": "https"}],
    "forwarder_headers": ["*", "", "REMOTE_USER,X_FORWARDED_FOR"],
    "header_map": ["refuse", "dangerous"],
    "strip_header_spaces": [True],
    "casefold_http_method": [True],
    "permit_obsolete_folding": [True],
    "permit_unconventional_http_method": [True],
    "permit_unconventional_http_version": [True],
    "limit_request_line": [0, 40, 8190],
    "limit_request_fields": [0, 4, 32768],
    "limit_request_field_size": [0, 32],
    "proxy_protocol": ["v1", "v2", "auto"],
    "proxy_allow_ips": ["*", "10.0.0.0/8"],
}

#: The fast parser has no such settings.
ONLY_PYTHON = {"strip_header_spaces", "permit_obsolete_folding"}

#: How many combinations of several settings are tried with each parser.
COMBINED = 24


def configurations():
    """Return the settings of each server."""
    found = []
    for parser in PARSERS:
        allowed = [name for name in VALUES if parser == "python" or name not in ONLY_PYTHON]
        chosen = [{}]
        chosen += [{name: value} for name in allowed for value in VALUES[name]]
        for seed in range(COMBINED):
            draw = random.Random(seed)
            names = draw.sample(allowed, draw.randint(2, len(allowed)))
            chosen.append({name: draw.choice(VALUES[name]) for name in names})
        found += [{"http_parser": parser, **settings} for settings in chosen]
    return found
