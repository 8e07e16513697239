"""One place that tells pynetdicom to keep quiet and to send files without decoding them.

These are the library's own documented switches. They are process-wide, so both users of the library
set them through here, to the same values.
"""

from __future__ import annotations

from pynetdicom import _config


def configure_library() -> None:
    """Switch off the formatting and logging of identifiers and PDUs; stream C-STORE requests from disk.

    Identifiers hold patient data, and formatting them costs time even when nobody listens. Safe to call
    any number of times.
    """
    _config.LOG_HANDLER_LEVEL = "none"
    _config.LOG_REQUEST_IDENTIFIERS = False
    _config.LOG_RESPONSE_IDENTIFIERS = False
    _config.STORE_SEND_CHUNKED_DATASET = True
