"""``python -m inner_service.audit``: does the database say what its log says?"""

from __future__ import annotations

from inner_service.store import Store
from service_kit.audit import main

if __name__ == "__main__":
    main("inner", "runs", Store.open_for_audit)
