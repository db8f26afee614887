"""What an image consists of, as a small JSON document.

Source: own.
"""

from __future__ import annotations

import dataclasses
import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from instar.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

FORMAT = 1
IMAGE_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,62}")
DIGEST = re.compile(r"[0-9a-f]{64}")
PARTS = 4096  # files that an initrd may be made of


class Blob(NamedTuple):
    """A stored file: SHA-256 in hexadecimal and length in bytes."""

    sha256: str
    size: int


class Part(NamedTuple):
    """A file that went into the initrd: path there, permissions, contents."""

    path: str
    permissions: int
    blob: Blob


@dataclasses.dataclass(frozen=True)
class Manifest:
    """An image: what boots, and what that was made of.

    Attributes:
        name: As in ``instar image path NAME``.
        packages: Debian package to its version.
        recipe: Digest of our own part of the initrd; another one means that the initrd is to be made again.
        wanted: Kernel modules asked for; others mean that the packages are to be fetched again.
        kernel: The kernel as the boot loader takes it.
        initrd: The initramfs.
        parts: The foreign files in the initrd, in their order.
    """

    name: str
    packages: dict[str, str]
    recipe: str
    wanted: tuple[str, ...]
    kernel: Blob
    initrd: Blob
    parts: tuple[Part, ...]

    def blobs(self) -> Iterator[Blob]:
        """Yield every stored file that the image needs."""
        yield self.kernel
        yield self.initrd
        for part in self.parts:
            yield part.blob

    def render(self) -> bytes:
        """Return the document; :meth:`parse` gives the same manifest back."""
        document = {
            "format": FORMAT,
            "packages": self.packages,
            "recipe": self.recipe,
            "wanted": list(self.wanted),
            "kernel": self.kernel._asdict(),
            "initrd": self.initrd._asdict(),
            "parts": [
                {"path": part.path, "permissions": part.permissions, **part.blob._asdict()}
                for part in self.parts
            ],
        }
        return json.dumps(document, indent=1).encode() + b"\n"

    @classmethod
    def parse(cls, name: str, raw: bytes) -> Manifest:
        """Return the manifest in ``raw``.

        Raises:
            ConfigError: it is not one of ours, whole; nothing was changed.
        """
        try:
            return _manifest(name, json.loads(raw))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
            error = ConfigError(f"the manifest of image '{name}' is damaged")
            raise error.hint(f"'instar image pull --refresh {name}' makes it anew") from exc


def is_image_name(name: str) -> bool:
    """Return whether an image could have this name."""
    return IMAGE_NAME.fullmatch(name) is not None


def _manifest(name: str, document: dict[str, Any]) -> Manifest:
    if document["format"] != FORMAT or len(document["parts"]) > PARTS:
        raise ValueError("another format")
    return Manifest(
        name=name,
        packages={_text(key): _text(value) for key, value in document["packages"].items()},
        recipe=_text(document["recipe"]),
        wanted=tuple(_text(word) for word in document["wanted"]),
        kernel=_blob(document["kernel"]),
        initrd=_blob(document["initrd"]),
        parts=tuple(
            Part(_text(part["path"]), _number(part["permissions"]), _blob(part))
            for part in document["parts"]
        ),
    )


def _blob(record: dict[str, Any]) -> Blob:
    digest = _text(record["sha256"])
    if not DIGEST.fullmatch(digest):  # it becomes a file name
        raise ValueError("no digest")
    return Blob(digest, _number(record["size"]))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("no text")
    return value


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError("no number")
    return value
