"""Settings in a file: the same names as in the environment, which wins where both speak.

::

    # ~/.config/bilevel/config.toml, or the file that BILEVEL_CONFIG names
    OPENAI_BASE_URL = "http://127.0.0.1:11434/v1"
    BILEVEL_MODEL = "qwen3:8b"
    BILEVEL_MODEL_TIMEOUT = 300

Programs read it when they start, a library never. No file of the current folder is read: a folder that somebody else
wrote must not decide where a key is sent.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import MutableMapping
from pathlib import Path

from service_kit.errors import InvalidArgument, Violation
from service_kit.given_files import SETTINGS_BYTES, read_given_text

CONFIG_VARIABLE = "BILEVEL_CONFIG"
_OTHER = f"{CONFIG_VARIABLE} says which file is read; unset, it is ~/.config/bilevel/config.toml."


def config_path(environment: MutableMapping[str, str] | None = None) -> Path:
    """The file that is read: the named one, or the one in the user's configuration folder."""
    environment = os.environ if environment is None else environment
    if named := environment.get(CONFIG_VARIABLE):
        return Path(named).expanduser()
    base = environment.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(base).expanduser() / "bilevel" / "config.toml"


def apply_config_file(environment: MutableMapping[str, str] | None = None) -> frozenset[str]:
    """Put the file's settings into ``environment`` where it has none of that name; returns the names that it gave.

    Raises :class:`InvalidArgument` for a named file that is not there, and naming each unknown or ill-typed key.
    """
    environment = os.environ if environment is None else environment
    path = config_path(environment)
    named = bool(environment.get(CONFIG_VARIABLE))
    if not path.exists():
        if named:
            raise InvalidArgument.of(CONFIG_VARIABLE, f"must name a file; there is none at {path}", hint=_OTHER)
        return frozenset()
    field = CONFIG_VARIABLE if named else str(path)
    try:
        content = tomllib.loads(read_given_text(path, field, SETTINGS_BYTES, hint=_OTHER))
    except tomllib.TOMLDecodeError as error:
        raise InvalidArgument.of(str(path), f"must be a TOML file: {error}", hint=f"Mend it. {_OTHER}") from None
    if wrong := [violation for name, value in content.items() for violation in _wrong(path, name, value)]:
        raise InvalidArgument(wrong, hint=f"Mend {path}; docs/settings.md lists the settings.")
    given = frozenset(name for name in content if not environment.get(name))
    for name in given:
        value = content[name]
        environment[name] = str(int(value)) if isinstance(value, bool) else str(value)
    return given


def _wrong(path: Path, name: str, value: object) -> list[Violation]:
    from service_kit.settings import KNOWN_VARIABLES  # not before there is a file: every command comes by here

    field, names = f"{path}: {name}", KNOWN_VARIABLES - {CONFIG_VARIABLE}
    if name == CONFIG_VARIABLE:
        return [Violation(field, "belongs in the environment only, where it says which file is read")]
    if name not in names:
        close = difflib.get_close_matches(name.upper(), names, n=1)
        return [Violation(field, f"is not a setting; did you mean {close[0]}?" if close else "is not a setting")]
    if not isinstance(value, str | int | float):
        return [Violation(field, "must be a text, a number, true or false")]
    return []
