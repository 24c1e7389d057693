"""Why the local Qdrant server refuses: one shallow tree, imported by every module of the package.

RefusalError              a request gets its status and Qdrant's error JSON
├── MalformedError   400  the request is wrong, here and on any Qdrant
├── NotFoundError    404  no such collection or point
├── ConflictError    409  the collection is already there
├── TooLargeError    413  the body is over the limit
├── EngineError      500  the engine failed on a request that was valid
└── UnsupportedError 501  a full Qdrant does this, this server does not
DataDirError              the server cannot start on this data directory
"""

from typing import ClassVar


class RefusalError(Exception):
    """A request that gets no result; its text is the answer's `status.error`."""

    status_code: ClassVar[int]


class MalformedError(RefusalError):
    status_code = 400


class NotFoundError(RefusalError):
    status_code = 404


class ConflictError(RefusalError):
    status_code = 409


class TooLargeError(RefusalError):
    status_code = 413


class EngineError(RefusalError):
    status_code = 500


class UnsupportedError(RefusalError):
    status_code = 501

    def __init__(self, feature: str) -> None:
        super().__init__(f"Not in the local server, use a full Qdrant for it: {feature}")


class DataDirError(Exception):
    """The data directory is in use by another server or cannot be read."""
