#!/usr/bin/env python3
"""Number the lines of all TCP clients; a "!" replaces this program by what its file says now, if that is any good."""

import os
import select
import socket
import sys

from instar.cpr.engine import Engine
from instar.cpr.errors import CprError
from instar.cpr.state import State, fd, state, u


@state("counter", version=1)
class Counter(State):
    """What lives through an update, besides the clients' connections."""

    count: int = u(64, "Lines so far.")
    listener: int = fd("Where clients connect.")


socket.setdefaulttimeout(0)  # no client can make the others wait
engine = Engine("1")
counter = engine.state("counter", Counter)
if counter.listener < 0:
    counter.listener = socket.create_server(("127.0.0.1", int(sys.argv[1]))).detach()
listener = socket.socket(fileno=counter.listener)
clients = engine.fds.group("clients")
print(engine.ready() or f"serving port {listener.getsockname()[1]}", flush=True)
while True:
    for ready in select.select([counter.listener, *clients], [], [])[0]:
        try:
            if ready == counter.listener:
                clients.add(listener.accept()[0].detach())
                continue
            if not (data := os.read(ready, 4096)):
                raise ConnectionError
            for _ in range(data.count(b"\n")):
                counter.count += 1
                os.write(ready, f"{counter.count} version {engine.version}\n".encode())
            if b"!" in data:
                engine.update(sys.argv)
        except CprError as exc:
            print(exc, flush=True)  # the new version tried itself, and this is why it is not used
        except OSError:  # the client is gone, or does not read
            if clients.discard(ready):
                os.close(ready)
