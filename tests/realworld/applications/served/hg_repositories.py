"""Mercurial's hgweb, as its configuration says."""

import os

from mercurial.hgweb import hgweb

app = hgweb(os.environ["CONFIGURATION"].encode())
