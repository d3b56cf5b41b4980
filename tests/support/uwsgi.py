"""Requests of uWSGI's protocol."""

import struct


def packet(method, path, body=b"", **variables):
    variables = {
        "REQUEST_METHOD": method,
        "REQUEST_URI": path,
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "test",
        "CONTENT_LENGTH": str(len(body)),
        **variables,
    }
    block = b"".join(
        struct.pack("<H", len(text)) + text.encode() for pair in variables.items() for text in pair
    )
    return struct.pack("<BHB", 0, len(block), 0) + block + body
