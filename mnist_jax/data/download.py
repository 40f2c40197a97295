"""Downloads the IDX files: over HTTPS alone, checked, in seconds without a network."""

import hashlib
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import requests

from mnist_jax.data import idx
from mnist_jax.data.dataset import DatasetError

CONNECT_SECONDS = 3.0
READ_SECONDS = 4.0  # between two pieces of a file


class _Failure(requests.RequestException):
    """What requests would let pass; the message is a few words."""


class _LoopbackAdapter(requests.adapters.HTTPAdapter):
    """HTTP to this machine alone, wherever a redirect leads."""

    def send(self, request, **kwargs):
        url = urlsplit(request.url)
        if url.hostname not in ("127.0.0.1", "localhost"):
            raise _Failure(f"http://{url.netloc} refused, expected https")
        return super().send(request, **kwargs)


def fetch(
    name: str, base_urls: Sequence[str], sums: Mapping[str, str], folder: Path
) -> tuple[dict[str, Path], str]:
    """Downloads the four gzipped IDX files of a data set.

    Args:
      name: of the data set, for the message.
      base_urls: the mirrors, best first.
      sums: SHA-256 by file name.
      folder: where the files are written.

    Returns:
      The paths by the keys of `idx.FILES`, and the first mirror that served all.

    Raises:
      DatasetError: no mirror did, with the reason of each.
      OSError: `folder` cannot be written.
    """
    failures = _probe(base_urls)
    for base_url in base_urls:
        if base_url in failures:
            continue
        paths = {}
        try:
            for part, stem in idx.FILES.items():
                paths[part] = folder / f"{stem}.gz"
                _download(f"{base_url}{stem}.gz", paths[part], sums[f"{stem}.gz"])
            return paths, base_url
        except requests.RequestException as error:
            failures[base_url] = f"{stem}.gz: {_reason(error)}"
    reasons = "; ".join(f"{url}: {reason}" for url, reason in failures.items())
    variable = " or MNIST_RAW_DIR" if name == "mnist" else ""
    raise DatasetError(
        f"{name}: not prepared yet, and the download failed ({reasons}); supply it as "
        f"a prepared --data_dir, as raw IDX files by --raw_dir{variable}, or with a "
        "network connection"
    )


def _probe(base_urls: Sequence[str]) -> dict[str, str]:
    """Why each mirror, by URL, that does not serve the smallest file at once does not.

    In daemon threads: a DNS look-up has no timeout and may hang for half a minute.
    """
    failures = dict.fromkeys(base_urls, "timed out")

    def ask(base_url: str) -> None:
        try:
            _open(f"{base_url}{idx.FILES['test_labels']}.gz").close()
            del failures[base_url]
        except requests.RequestException as error:
            failures[base_url] = _reason(error)

    threads = [threading.Thread(target=ask, args=[u], daemon=True) for u in base_urls]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + CONNECT_SECONDS
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return failures.copy()


def _download(url: str, path: Path, sha256: str) -> None:
    digest = hashlib.sha256()
    with _open(url) as response, open(path, "wb") as file:
        for piece in response.iter_content(2**16):
            digest.update(piece)
            file.write(piece)
    if digest.hexdigest() != sha256:
        raise _Failure("SHA-256 differs from the recorded one")


def _open(url: str) -> requests.Response:
    with requests.Session() as session:
        session.mount("http://", _LoopbackAdapter())
        timeout = (CONNECT_SECONDS, READ_SECONDS)
        response = session.get(url, stream=True, timeout=timeout)
    if response.status_code != 200:
        raise _Failure(f"HTTP {response.status_code}")
    return response


def _reason(error: requests.RequestException) -> str:
    """What went wrong, in a few words: requests' own messages fill a screen."""
    if isinstance(error, _Failure):
        return str(error)
    # Inside a file a timeout is a ConnectionError to requests.
    if isinstance(error, requests.Timeout) or "timed out" in str(error):
        return "timed out"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "connection broken"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    return type(error).__name__
