"""A loop and a stream without descriptors: the test decides what the host takes and gives."""

from __future__ import annotations

from instar.chardev.base import FdChardev


class FakeLoop:
    def __init__(self):
        self.watched = {}
        self.later = []

    def watch(self, fd, *, readable=None, writable=None):
        self.watched[fd] = (readable, writable)

    def unwatch(self, fd):
        self.watched.pop(fd, None)

    def call_later(self, _delay_ns, callback):
        self.later.append(callback)

    def watching(self, _stream):
        readable, writable = self.watched.get(FakeStream.NUMBER, (None, None))
        return (readable is not None, writable is not None)

    def ready_in(self, stream):
        self._call(stream, 0)

    def ready_out(self, stream):
        self._call(stream, 1)

    def _call(self, _stream, which):
        handler = self.watched.get(FakeStream.NUMBER, (None, None))[which]
        if handler is not None:
            handler()


class FakeStream(FdChardev):
    """A device whose host takes ``takes`` bytes a call and gives ``input`` (None: end of input)."""

    NUMBER = 1000

    def __init__(self, loop, ident="fake"):
        super().__init__(ident, loop)
        self.loop = loop
        self.takes = 1 << 20
        self.host = b""
        self.input = b""
        self.error = None
        self._in_fd = self._out_fd = self.NUMBER

    def _read(self, size):
        if self.input is None:
            return b""
        if not self.input:
            raise BlockingIOError
        data, self.input = self.input[:size], self.input[size:]
        return data

    def _send(self, data):
        if self.error is not None:
            raise self.error
        if not self.takes:
            raise BlockingIOError
        taken = bytes(data[: self.takes])
        self.host += taken
        return len(taken)


class FakeFds:
    """A table of named descriptors."""

    def __init__(self, entries=None):
        self.entries = dict(entries or {})

    def take(self, name, ident, /):
        return self.entries.pop((name, ident), -1)

    def resave(self, name, ident, fd, /, *, owner, kind=""):
        assert fd not in self.entries.values()
        self.entries[name, ident] = fd

    def delete(self, name, ident, /):
        return self.entries.pop((name, ident), None) is not None

    def walk(self, _owner="", /):
        return iter(())
