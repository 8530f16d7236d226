"""The store: every finished value once, under its digest, and what each step's key came to (see `mapsto.store.store`)."""

from mapsto.store.codec import encode, measured_of, network_digest
from mapsto.store.files import FORMAT, disk_error, write_atomically
from mapsto.store.state import decode_state, encode_state
from mapsto.store.store import Record, Store, default_store
from mapsto.store.upkeep import Finding

__all__ = [
    "FORMAT",
    "Finding",
    "Record",
    "Store",
    "decode_state",
    "default_store",
    "disk_error",
    "encode",
    "encode_state",
    "measured_of",
    "network_digest",
    "write_atomically",
]
