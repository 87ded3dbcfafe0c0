"""What can go wrong on somebody's machine, told in one line."""


class Problem(Exception):
    """Something that the user can put right; its text names the cause and what to do."""
