"""The one error a user of midsentence is meant to see."""


class UserError(Exception):
    """Something the person at the keyboard can put right.

    The message is one line: what is wrong, where (file and line number where there is one), and
    how to mend it. The command line prints it without a traceback and exits with 1.
    """
