"""Characters that a header field may have, by RFC 9110 sections 5.1 and 5.5."""

import string

#: The characters that `apps.informing` tries, as numbers.
EVERY_CHARACTER = [*range(256), 0x100, 0x20AC, 0x1F600]

#: Those that may be sent in a name and in a value. In a value, gunicorn itself allows others, too.
ALLOWED_CHARACTERS = {
    "name": sorted(map(ord, "!#$%&'*+-.^_`|~" + string.digits + string.ascii_letters)),
    "value": [ord("\t"), *range(0x20, 0x7F)],
}
