"""Downloads that end: checked by their SHA-256, whole or not there."""

import hashlib
import http.client
import os
import threading
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nfp_jax.data.dataset import DataError

CONNECT_SECONDS = 5.0  # name look-up, connection and first answer together


STALL_SECONDS = 20.0  # a download that brings nothing for so long has failed


def fetch_file(url: str, target: Path, size: int, sha256: str) -> None:
    """Downloads a file, whole or not at all.

    Raises:
      DataError: its size or SHA-256 is another.
      OSError: it can't be reached or written.
    """
    from tqdm import tqdm

    digest, received = hashlib.sha256(), 0
    with (
        _open(url) as response,
        replacing(target) as partial_file,
        tqdm(total=size, unit="B", unit_scale=True, desc=target.name) as progress,
    ):
        with partial_file.open("wb") as file:
            while chunk := response.read(1 << 16):
                file.write(chunk)
                digest.update(chunk)
                received += len(chunk)
                progress.update(len(chunk))
        if (received, digest.hexdigest()) != (size, sha256):
            raise DataError(
                f"{target.name} from {url} is damaged: {received} bytes of SHA-256 "
                f"{digest.hexdigest()}, expected {size} bytes of SHA-256 {sha256}"
            )


def _open(url: str) -> Any:
    """Opens the address, or raises OSError, within CONNECT_SECONDS.

    In a thread, since neither name look-up nor a proxy heeds a socket's timeout.
    """
    outcome: list[Any] = []

    def connect() -> None:
        try:
            outcome.append(urllib.request.urlopen(url, timeout=STALL_SECONDS))
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, urllib.error.HTTPError):
                error.close()
            outcome.append(error)

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(CONNECT_SECONDS)
    if not outcome:
        raise TimeoutError(f"no answer within {CONNECT_SECONDS:g} seconds")
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return outcome[0]


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A temporary name that becomes the target's if all goes well, else goes away."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
    try:
        yield temporary
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
