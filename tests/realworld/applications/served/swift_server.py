"""A server of Swift: proxy, account, container or object, as its configuration says."""

import os

from swift.common.storage_policy import reload_storage_policies
from swift.common.utils import set_swift_dir
from swift.common.wsgi import loadapp

set_swift_dir(os.environ["SWIFT_ETC"])
reload_storage_policies()
app = loadapp(os.environ["CONFIGURATION"])
