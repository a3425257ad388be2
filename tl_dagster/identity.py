"""Digests: the addresses of everything that is computed once."""

import hashlib
import json

__all__ = ["digest"]


def digest(value: object) -> str:
    """SHA-256 (64 hex digits) of a JSON-serialisable value in canonical form."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
