"""The errors that Lamppost shows to people."""


class LamppostError(Exception):
    """Something a person can act on: what is wrong, and what to do about it.

    The command line shows `message` and `remedy`, and exits with `exit_code`; never a traceback.
    """

    exit_code = 1

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}\n{self.remedy}" if self.remedy else self.message
