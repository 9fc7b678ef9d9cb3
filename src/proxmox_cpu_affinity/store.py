"""State and cache files: replaced atomically, with version and checksum; damaged ones set aside."""

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from proxmox_cpu_affinity.model.errors import StoreError
from proxmox_cpu_affinity.ports import Loaded

VERSION = 1
_LIMIT = 64 << 20


@dataclass(frozen=True, slots=True)
class JsonFile:
    """One JSON file of ours."""

    path: Path

    def load(self, *, set_aside: bool = True) -> Loaded:
        """Its content. A damaged or foreign file is renamed to NAME.bad, never deleted; or left
        where it is, for those who only look."""
        try:
            # A link leads to what is not ours; a FIFO would hold the start for ever.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            with os.fdopen(os.open(self.path, flags), "rb") as file:
                data = file.read(_LIMIT + 1) or b""
        except FileNotFoundError:
            return Loaded(None)
        except OSError as error:
            return Loaded(None, f"cannot be read: {error.strerror}")
        problem, content = content_of(data)
        if content is None and set_aside:
            problem += self._set_aside()
        return Loaded(content, problem)

    def save(self, content: Mapping[str, object]) -> None:
        """Replace the file: new content on disk under another name first, then renamed.

        StoreError, with the file as it was, where that fails.
        """
        whole = written(content)
        fresh = self.path.with_name(self.path.name + ".new")
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            handle = os.open(fresh, flags, 0o600)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(whole)
                file.flush()
                os.fsync(file.fileno())
            os.replace(fresh, self.path)
        except OSError as error:
            with suppress(OSError):
                fresh.unlink()
            raise StoreError(
                f"{self.path.name} cannot be written: {error.strerror}",
                hint=f"look at the space and the rights of {self.path.parent.name}",
            ) from None

    def _set_aside(self) -> str:
        aside = self.path.with_name(self.path.name + ".bad")
        try:
            os.replace(self.path, aside)
        except OSError as error:
            return f"; it cannot be set aside: {error.strerror}"
        return f"; set aside as {aside.name}"


def _checksum(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()


def written(content: Mapping[str, object]) -> str:
    """The text of a file with this content."""
    body = json.dumps(content, separators=(",", ":"), sort_keys=True)
    return f'{{"version":{VERSION},"sha256":"{_checksum(body)}","content":{body}}}\n'


def content_of(data: bytes) -> tuple[str, Mapping[str, object] | None]:
    """What is wrong with a file's bytes, and their content where nothing is."""
    if len(data) > _LIMIT:
        return "is too large", None
    try:
        whole = json.loads(data)
    except (ValueError, RecursionError):
        return "is damaged", None
    if not isinstance(whole, dict) or whole.get("version") != VERSION:
        return "is of another version", None
    content = whole.get("content")
    if not isinstance(content, dict):
        return "is damaged", None
    body = json.dumps(content, separators=(",", ":"), sort_keys=True)
    if whole.get("sha256") != _checksum(body):
        return "has a wrong checksum", None
    return "", content
