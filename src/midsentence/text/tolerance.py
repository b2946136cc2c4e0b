"""Lines that cannot be read: an end, a gap, or something to be mended."""

from ..errors import UserError

HOW = ("error", "skip", "replace")


class Bad:
    """What becomes of a line that can't be read: `how` is

    - ``error``: it ends the reading, with the file and the line number;
    - ``skip``: it is left out and counted;
    - ``replace``: what is no UTF-8 in it becomes U+FFFD, a NUL a space; if that is not what is
      wrong with it, it is left out.
    """

    def __init__(self, how: str = "error"):
        if how not in HOW:
            raise UserError(f"corpus.on_bad = {how!r} is not one of {', '.join(HOW)}")
        self.how, self.count, self.first = how, 0, ""

    def __call__(self, message: str) -> None:
        """Take note of one. Raises UserError where that is asked for."""
        if self.how == "error":
            raise UserError(message)
        self.count, self.first = self.count + 1, self.first or message

    def __str__(self) -> str:
        return f"{unread(self.count, self.how)}, first {self.first}"

    def after(self) -> str:
        """What to add to a complaint of too little text: the reason may be here."""
        return f" ({self})" if self.count else ""


def unread(count: int, how: str) -> str:
    """How many lines could not be read, and what became of them."""
    what = "left out" if how == "skip" else "mended or left out"
    return f"{count:,} lines could not be read and were {what}"
