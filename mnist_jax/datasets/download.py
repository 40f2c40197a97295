"""Downloads by tfds's download manager, over HTTPS alone, that end in bounded time.

On its own tfds passes no time-out and retries ten times, so a machine without a
network waits for minutes and a server that stalls is waited for without end. It also
follows a redirection to wherever it leads.
"""

import contextlib
import ipaddress
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import requests
import urllib3
from absl import logging
from tensorflow_datasets.core import download as tfds_download

from mnist_jax.datasets import idx

ANSWER_SECONDS = 3.0  # for a mirror to answer at all
READ_SECONDS = 4.0  # between two pieces of a file


class _NotHttps(requests.RequestException):
    """A request that is not made; the message is a few words."""


class _HttpsAdapter(requests.adapters.HTTPAdapter):
    """Sends over HTTPS, or to this machine."""

    def send(self, request, **kwargs):
        _require_https(request.url)
        return super().send(request, **kwargs)


def fetch(
    dl_manager: tfds_download.DownloadManager, name: str, base_urls: Sequence[str]
) -> tuple[dict[str, Path], str]:
    """Downloads the four gzipped IDX files from the mirrors that answer.

    Args:
      dl_manager: knows the SHA-256 of each URL and checks it.
      name: of the data set, for messages.
      base_urls: the mirrors, best first; one that fails is not asked again.

    Returns:
      The paths by the keys of `idx.FILES`, and the mirrors they came from.

    Raises:
      idx.DatasetError: no mirror delivered, with the reason for each.
    """
    problems: list[str] = []
    mirrors = _answering(base_urls, problems)
    paths: dict[str, Path] = {}
    used: list[str] = []
    with _bounded_requests():
        for part, stem in idx.FILES.items():
            # One file at a time, so that a failure leaves no other one running.
            while mirrors and part not in paths:
                try:
                    paths[part] = dl_manager.download(f"{mirrors[0]}{stem}.gz")
                    if mirrors[0] not in used:
                        used.append(mirrors[0])
                except (
                    OSError,  # the base of all of requests' errors too
                    tfds_download.DownloadError,
                    tfds_download.download_manager.NonMatchingChecksumError,
                ) as error:
                    problem = f"{mirrors[0]}{stem}.gz: {_reason(error)}"
                    logging.warning("Download failed: %s", problem)
                    problems.append(problem)
                    mirrors.pop(0)
    if not mirrors:
        variable = " or MNIST_RAW_DIR" if name == "mnist" else ""
        raise idx.DatasetError(
            f"{name}: not prepared yet, and the download failed "
            f"({'; '.join(problems)}); supply it as a prepared --data_dir, as raw IDX "
            f"files by --raw_dir{variable}, or with a network connection"
        )
    return paths, " and ".join(used)


def _answering(base_urls: Sequence[str], problems: list[str]) -> list[str]:
    """Those `base_urls` that serve the smallest file at once, in the same order.

    All are asked at the same time, in daemon threads: a name look-up has no
    time-out of its own and may hang for half a minute. The reasons of the others
    are appended to `problems`.
    """
    replies: dict[str, str] = {}

    def ask(base_url: str) -> None:
        url = f"{base_url}{idx.FILES['test_labels']}.gz"
        try:
            with requests.Session() as session:
                for scheme in ("http://", "https://"):
                    session.mount(scheme, _HttpsAdapter())
                status = session.get(url, timeout=ANSWER_SECONDS).status_code
            replies[base_url] = "" if status == 200 else f"HTTP {status}"
        except OSError as error:
            replies[base_url] = _reason(error)

    deadline = time.monotonic() + ANSWER_SECONDS
    threads = [
        threading.Thread(target=ask, args=(base_url,), daemon=True)
        for base_url in base_urls
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    problem_of = {url: replies.get(url, "no answer in time") for url in base_urls}
    problems += [f"{urlsplit(url).netloc}: {p}" for url, p in problem_of.items() if p]
    return [url for url, problem in problem_of.items() if not problem]


@contextlib.contextmanager
def _bounded_requests() -> Iterator[None]:
    """Gives every request made meanwhile HTTPS, time-outs and no retries.

    tfds makes its own `requests.Session`, so the one place to reach is the adapter
    through which each session sends. A transfer still running when the context is
    left (Ctrl-C) ends at its next piece: the interpreter waits for tfds's threads.
    """
    send = requests.adapters.HTTPAdapter.send
    over = threading.Event()

    def bounded_send(adapter, request, **kwargs):
        _require_https(request.url)
        adapter.max_retries = urllib3.Retry(0, read=False)
        kwargs["timeout"] = (ANSWER_SECONDS, READ_SECONDS)
        response = send(adapter, request, **kwargs)
        pieces = response.iter_content

        def pieces_until_over(*args, **kwargs):
            for piece in pieces(*args, **kwargs):
                if over.is_set():
                    raise requests.ConnectionError("download abandoned")
                yield piece

        response.iter_content = pieces_until_over
        return response

    requests.adapters.HTTPAdapter.send = bounded_send
    try:
        yield
    finally:
        requests.adapters.HTTPAdapter.send = send
        over.set()


def _require_https(url: str) -> None:
    """Refuses to send a request, be it the first or where another was redirected.

    Raises:
      _NotHttps: it would go over a network, and not over HTTPS.
    """
    parts = urlsplit(url)
    if parts.scheme == "https" or _is_this_machine(parts.hostname or ""):
        return
    raise _NotHttps(f"{parts.scheme}://{parts.netloc} refused, expected https")


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _reason(error: Exception) -> str:
    """What went wrong, in a few words: requests' own messages fill a screen."""
    if isinstance(error, _NotHttps):
        return str(error)
    if isinstance(error, tfds_download.download_manager.NonMatchingChecksumError):
        return "SHA-256 differs from the recorded one"
    if isinstance(error, tfds_download.DownloadError):
        return "HTTP " + str(error).rpartition("HTTP code: ")[2].rstrip(".")
    if isinstance(error, requests.Timeout) or "timed out" in str(error):
        return "no answer in time"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "connection broken"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    return getattr(error, "strerror", None) or type(error).__name__
