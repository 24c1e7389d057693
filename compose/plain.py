"""Text of others as a terminal may show it; only `compose` imports it."""

import unicodedata


def strip_controls(text: str) -> str:
    """Without control characters: ESC begins commands to the terminal."""
    return "".join(char for char in text if unicodedata.category(char) != "Cc")
