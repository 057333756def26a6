"""Seeds of requests."""

import hashlib


def request_seed(run_seed: int, purpose: str, index: int) -> int:
    """Return a 31-bit seed that depends on nothing but its arguments, so that a resumed run repeats its requests."""
    digest = hashlib.blake2b(f"{run_seed}/{purpose}/{index}".encode(), digest_size=4).digest()
    return int.from_bytes(digest) >> 1
