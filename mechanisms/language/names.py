"""Leading underscores: RestrictedPython refuses ``_x``, people and models write it everywhere.

``_x`` becomes ``hidden1_x`` and ``__x`` becomes ``hidden2_x``. The new name means nothing to Python, so ``random._os``
names an attribute that does not exist. Dunder names are left alone, for RestrictedPython to judge.
"""

from __future__ import annotations

import re

_HIDDEN = re.compile(r"hidden(\d+)_")

# Attributes that lead from a generator, coroutine or traceback to its frame, and from a frame to everything.
_FRAME_NAMES = """
    tb_frame tb_next tb_lasti f_back f_builtins f_code f_generator f_globals f_locals f_trace co_code co_consts gi_frame
    gi_code gi_yieldfrom cr_await cr_frame cr_code cr_origin ag_await ag_frame ag_code"""
FRAME_NAMES = frozenset(_FRAME_NAMES.split())


def is_dunder(name: str) -> bool:
    """Whether ``name`` has the form ``__x__``."""
    return len(name) > 4 and name.startswith("__") and name.endswith("__")


def is_reserved(name: str) -> bool:
    """Whether ``name`` already looks like a hidden name, which would make two names collide."""
    return _HIDDEN.match(name) is not None


def hide(name: str) -> str:
    """The name that stands for ``name`` in desugared code."""
    if not name.startswith("_") or name == "_" or is_dunder(name):
        return name
    bare = name.lstrip("_")
    return f"hidden{len(name) - len(bare)}_{bare}"


def reveal(text: str) -> str:
    """``text`` with every hidden name as its author wrote it."""
    return _HIDDEN.sub(lambda match: "_" * min(int(match[1][:3]), 40), text)
