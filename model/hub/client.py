"""Talks to a hub: what files a model has, and one of them, resumed where it broke off, checked at the end.

huggingface_hub knows the address, the token of this user and the shapes of the answers. Its own download
begins anew after every break, so the bytes are fetched here.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from model.hub.choice import HubFile
from model.hub.source import HubError, is_safe
from model.machine import readable_size

MAX_TRIES = 6  # one after the other that bring nothing
_CHUNK = 1 << 20
_SLEEP_SECONDS = (0.0, 1.0, 2.0, 4.0, 8.0, 15.0)
_SPARE = 200 << 20
"""Of the disk, that is left free."""
_MAX_FILES = 10_000
_TIMEOUT = 30.0

Progress = Callable[[int], None]
"""Bytes of the file that are there; raises to stop."""


@dataclass(frozen=True)
class Listing:
    commit: str
    files: list[HubFile]


class Hub:
    """`endpoint` is another address than the usual one, or than the one that HF_ENDPOINT names."""

    def __init__(self, endpoint: str | None = None, pause: Callable[[float], None] | None = None) -> None:
        """pause: called with seconds between two tries; raises to stop."""
        self._endpoint = endpoint
        self._pause = pause or (lambda seconds: None)

    def listing(self, repo: str) -> Listing:
        """Raises HubError."""
        from huggingface_hub import HfApi

        with _told(repo):
            info = HfApi(endpoint=self._endpoint).model_info(repo, files_metadata=True, timeout=_TIMEOUT)
        files = [file for sibling in (info.siblings or [])[:_MAX_FILES]
                 if (file := _file(sibling)) is not None]
        if not info.sha or not info.sha.isalnum():
            raise HubError(f"{repo}: the hub does not say which version it has")
        return Listing(info.sha, files)

    def fetch(self, repo: str, commit: str, file: HubFile, folder: Path, progress: Progress) -> Path:
        """The file below `folder`, from the hub if it is not there. Raises HubError, OSError."""
        target = folder / file.path
        if target.is_file() and target.stat().st_size == file.size:
            progress(file.size)
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f"{target.name}.{file.digest[1][:8]}.part")
        have = part.stat().st_size if part.is_file() else 0
        _check_disk(folder, file.size - have)
        tries = 0
        while have < file.size or not part.is_file():
            before = have
            self._pause(_SLEEP_SECONDS[min(tries, len(_SLEEP_SECONDS) - 1)])
            problem = self._get(repo, commit, file, part, have, progress)
            have = part.stat().st_size if part.is_file() else 0
            tries = 0 if have > before else tries + 1
            if problem and tries >= MAX_TRIES:
                raise HubError(f"{file.path}: {problem}; {readable_size(have)} of {readable_size(file.size)} "
                               "are here. Begin again to go on from there.")
        _check(file, part)
        os.replace(part, target)  # noqa: PTH105 - the one call that is atomic everywhere
        return target

    def _get(self, repo: str, commit: str, file: HubFile, part: Path, have: int, progress: Progress) -> str:
        """Append to `part` what comes; why it ended early, or ""."""
        import httpx2
        from huggingface_hub import get_session, hf_hub_url
        from huggingface_hub.utils import build_hf_headers

        url = hf_hub_url(repo, file.path, revision=commit, endpoint=self._endpoint)
        headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
        try:
            with get_session().stream("GET", url, headers=headers, timeout=_TIMEOUT,
                                      follow_redirects=True) as answer:
                if answer.status_code >= 500 or answer.status_code == HTTPStatus.TOO_MANY_REQUESTS:
                    return f"the hub answers with {answer.status_code}"
                if answer.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                    part.unlink(missing_ok=True)
                    return "the hub cannot go on from here"
                if answer.status_code not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
                    raise HubError(f"{file.path}: the hub answers with {answer.status_code}")
                goes_on = answer.status_code == HTTPStatus.PARTIAL_CONTENT
                with part.open("ab" if goes_on and have else "wb") as out:
                    there = have if goes_on else 0
                    for chunk in answer.iter_bytes():  # as it comes: what is here is kept
                        there += len(chunk)
                        if there > file.size:
                            raise HubError(f"{file.path}: the hub sends more than the {file.size:,} bytes "
                                           "that it has listed")
                        out.write(chunk)
                        progress(there)
        except httpx2.HTTPError as error:
            return f"the connection broke off ({error or type(error).__name__})"
        return "" if there == file.size else "the connection broke off"


def _file(sibling: Any) -> HubFile | None:
    """None for what has no size or would not lie below a folder of ours."""
    path, size, lfs = sibling.rfilename, sibling.size, sibling.lfs
    digest = ("sha256", lfs.sha256) if lfs is not None else ("git", sibling.blob_id)
    good = isinstance(path, str) and is_safe(path) and isinstance(size, int) and 0 <= size < 1 << 50 \
        and isinstance(digest[1], str) and digest[1].isalnum()
    return HubFile(path, size, digest) if good else None


def _check(file: HubFile, part: Path) -> None:
    """Raises HubError unless its contents are what the hub has listed; then it is deleted."""
    kind, expected = file.digest
    digest = hashlib.sha256() if kind == "sha256" else \
        hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)
    with part.open("rb") as data:
        while chunk := data.read(_CHUNK):
            digest.update(chunk)
    if digest.hexdigest() != expected.lower():
        part.unlink(missing_ok=True)
        raise HubError(f"{file.path} is not what the hub has: its checksum differs. It was deleted; download "
                       "it again.")


def _check_disk(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed + _SPARE > free:
        raise HubError(f"{readable_size(needed)} are to be downloaded; the disk of {folder.name} has "
                       f"{readable_size(free)} left")


@contextmanager
def _told(repo: str) -> Iterator[None]:
    """What huggingface_hub raises, as sentences."""
    from huggingface_hub.errors import GatedRepoError, OfflineModeIsEnabled, RepositoryNotFoundError

    try:
        yield
    except GatedRepoError as error:
        raise HubError(f"{repo} wants consent first: open its page on the hub, agree, make a token there, "
                       "and run: hf auth login") from error
    except RepositoryNotFoundError as error:
        raise HubError(f"The hub has no {repo}, or shows it to some accounts only; for those run: "
                       "hf auth login") from error
    except OfflineModeIsEnabled as error:
        raise HubError("HF_HUB_OFFLINE is set, so that nothing is asked") from error
    except Exception as error:
        first = (str(error).splitlines() or [""])[0][:200] or type(error).__name__
        raise HubError(f"The hub cannot be asked for {repo}: {first}") from error
