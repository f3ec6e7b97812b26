"""What can go wrong with a request, as HTTP tells it."""


class RequestError(Exception):
    """A request that gets no good answer: `status` is the HTTP status, `message` says what to change."""

    status = 400

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class BadRequest(RequestError):
    """The request can't be understood or breaks the data model."""


class NotFound(RequestError):
    """There is no such resource."""

    status = 404


class Unauthorized(RequestError):
    """A write without the right token."""

    status = 401


class MethodNotAllowed(RequestError):
    """The resource is there and does not do that."""

    status = 405


class Conflict(RequestError):
    """The request contradicts what is stored."""

    status = 409


class TooLarge(RequestError):
    """The body is longer than this service takes."""

    status = 413


class Unavailable(RequestError):
    """Disk full, database locked, too many requests at once: the same request may work later."""

    status = 503
