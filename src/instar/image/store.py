"""Images on this machine, kept by content.

Layout under the cache folder (``$INSTAR_CACHE``, else ``$XDG_CACHE_HOME/instar``, else ``~/.cache/instar``)::

    blobs/sha256/<digest>   a file, named by what is in it; never changed
    images/<name>.json      an image: which blobs it is made of; appears whole or not at all
    tmp/                    work in progress of whoever holds the lock
    lock                    held while anything is added or removed

Readers need no lock: a manifest is replaced by rename, and its blobs are there before it is. Source: own.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
from typing import TYPE_CHECKING

from instar.errors import ConfigError, HostError
from instar.image.manifest import Blob, Manifest, is_image_name

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

CHUNK = 1 << 20  # bytes read at a time
MANIFEST_LIMIT = 1 << 20  # bytes; ours have a few thousand


def default_root() -> str:
    """Return the cache folder that the environment names; it may not exist yet."""
    chosen = os.environ.get("INSTAR_CACHE")
    if chosen:
        return os.path.abspath(chosen)
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):  # the XDG specification: relative paths are to be ignored
        base = os.path.expanduser("~/.cache")
    return os.path.join(base, "instar")


class Store:
    """The images in one cache folder.

    Args:
        root: The cache folder; made when something is first stored.

    Source: own.
    """

    def __init__(self, root: str) -> None:
        self.root = root

    def names(self) -> list[str]:
        """Return the names of the images that are here, sorted."""
        try:
            files = os.listdir(os.path.join(self.root, "images"))
        except OSError:
            return []
        stems = [file.removesuffix(".json") for file in files if file.endswith(".json")]
        return sorted(stem for stem in stems if is_image_name(stem))

    def find(self, name: str) -> Manifest | None:
        """Return the image ``name``, or None if it is not here.

        Raises:
            ConfigError: ``name`` can be no image, or its manifest is damaged.
            HostError: it cannot be read.
        """
        path = self._manifest_path(name)
        try:
            with open(path, "rb") as stream:
                raw = stream.read(MANIFEST_LIMIT)
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise HostError(f"{path} cannot be read: {exc.strerror}") from exc
        return Manifest.parse(name, raw)

    def blob_path(self, blob: Blob) -> str:
        """Return where ``blob`` is, or would be."""
        return os.path.join(self.root, "blobs", "sha256", blob.sha256)

    def intact(self, blob: Blob) -> bool:
        """Return whether ``blob`` is here with every byte as it was stored."""
        try:
            return _measure(self.blob_path(blob)) == blob
        except OSError:
            return False

    def present(self, blob: Blob) -> bool:
        """Return whether ``blob`` is here with its length; quick, reads nothing."""
        try:
            return os.stat(self.blob_path(blob)).st_size == blob.size
        except OSError:
            return False

    @contextlib.contextmanager
    def writing(self, waiting: Callable[[], None]) -> Generator[StoreWriter]:
        """Hold the lock and lend a writer; one at a time on this machine.

        Args:
            waiting: Called once if another process holds the lock, before waiting for it.

        Raises:
            HostError: the cache folder cannot be written; nothing was changed.
        """
        try:
            for folder in ("blobs/sha256", "images", "tmp"):
                os.makedirs(os.path.join(self.root, folder), exist_ok=True)
            lock = os.open(
                os.path.join(self.root, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
            )
        except OSError as exc:
            raise HostError(
                f"the cache folder {self.root} cannot be written: {exc.strerror}"
            ) from exc
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting()
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield StoreWriter(self)
        finally:
            os.close(lock)

    def _manifest_path(self, name: str) -> str:
        if not is_image_name(name):
            raise ConfigError(f"{name!r} can be no image's name")
        return os.path.join(self.root, "images", f"{name}.json")


class StoreWriter:
    """Adds to and removes from a store; lent by :meth:`Store.writing`, valid inside it."""

    def __init__(self, store: Store) -> None:
        self.store = store

    @contextlib.contextmanager
    def workspace(self) -> Generator[str]:
        """Lend a fresh private folder; whatever happens, it is gone afterwards.

        What an earlier writer left, who was killed, goes first: we hold the lock, so nobody works there.
        """
        tmp = os.path.join(self.store.root, "tmp")
        for stale in os.listdir(tmp):
            shutil.rmtree(os.path.join(tmp, stale), ignore_errors=True)
        folder = tempfile.mkdtemp(dir=tmp)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def add_bytes(self, data: bytes) -> Blob:
        """Store ``data``, on the disk before this returns."""
        blob = Blob(hashlib.sha256(data).hexdigest(), len(data))
        self._settle(data, self.store.blob_path(blob))
        return blob

    def add_file(self, path: str) -> Blob:
        """Store a copy of the file at ``path``, on the disk before this returns."""
        with open(path, "rb") as stream:
            return self.add_bytes(stream.read())

    def publish(self, manifest: Manifest) -> None:
        """Let the image appear (or change) in one step; all its blobs must be stored."""
        path = os.path.join(self.store.root, "images", f"{manifest.name}.json")
        self._settle(manifest.render(), path)

    def remove(self, name: str) -> None:
        """Remove an image and what no other image needs. A damaged image can be removed too.

        Raises:
            ConfigError: there is no such image; nothing was changed.
        """
        if name not in self.store.names():
            raise ConfigError(
                f"there is no image '{name}' in {self.store.root}; nothing was removed"
            )
        os.unlink(os.path.join(self.store.root, "images", f"{name}.json"))
        self.sweep()

    def sweep(self) -> None:
        """Remove the blobs that no image names."""
        needed: set[str] = set()
        for name in self.store.names():
            manifest = self.store.find(name)
            if manifest is not None:
                needed.update(blob.sha256 for blob in manifest.blobs())
        folder = os.path.join(self.store.root, "blobs", "sha256")
        for file in os.listdir(folder):
            if file not in needed:
                os.unlink(os.path.join(folder, file))

    def _settle(self, data: bytes, path: str) -> None:
        """Write a file that is either not there or whole, also after a power cut."""
        tmp = os.path.join(self.store.root, "tmp")
        try:
            with tempfile.NamedTemporaryFile(dir=tmp, delete=False) as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            os.chmod(stream.name, 0o444)
            os.replace(stream.name, path)
            folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as exc:
            raise HostError(
                f"{path} cannot be written: {exc.strerror}; the images are as before"
            ) from exc


def _measure(path: str) -> Blob:
    digest = hashlib.sha256()
    size = 0
    with open(path, "rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return Blob(digest.hexdigest(), size)
