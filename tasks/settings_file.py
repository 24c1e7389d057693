"""The settings file: `embedmill.env` in the data directory, lines `EMBED_<NAME>=<value>`.

`tasks.settings` reads it, below the environment; `embedmill tune --apply` writes it. Whatever
shares a data directory shares the file.
"""

from pathlib import Path

from dotenv import dotenv_values

from tasks.errors import SettingsError

NAME = "embedmill.env"
DATA_DIR = "EMBED_DATA_DIR"


def read(path: Path) -> dict[str, str]:
    """Its values by name, as they stand; nothing where there is no such file.

    Raises SettingsError when it cannot be read, and for a name that cannot stand in it.
    """
    try:
        values = dotenv_values(path, encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path} cannot be read: {error}") from error
    for name, value in values.items():
        if value is None:
            raise SettingsError(f"{path}: {name} has no value; a line is {name}=...")
        if name.upper() == DATA_DIR:
            raise SettingsError(
                f"{path}: {DATA_DIR} says where this file is, so it belongs into the environment"
            )
    return {name: value for name, value in values.items() if value is not None}
