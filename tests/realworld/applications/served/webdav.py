"""WsgiDAV with one folder and one user; all else is its default."""

import os

from wsgidav.wsgidav_app import WsgiDAVApp

app = WsgiDAVApp(
    {
        "provider_mapping": {"/": os.environ["FOLDER"]},
        "simple_dc": {"user_mapping": {"*": {"ada": {"password": "letmein"}}}},
        "verbose": 1,
    }
)
