"""A service for ``bench_connections``: it answers each line of thousands of clients, and becomes itself anew.

``connections_service.py SOCKET``. A line ``update`` of a client is an update with all nets, ``bare`` one without a
rehearsal (in which a service of one thread stands still). On standard output a JSON object for each update.
"""

import json
import os
import select
import socket
import sys

from instar.cpr.engine import Engine
from instar.cpr.state import State, fd, state


@state("connections", version=1)
class Connections(State):
    """Where clients connect, and what watches them all."""

    listener: int = fd("Where clients connect.")
    poll: int = fd("An epoll.")


def start(keep: Connections) -> None:
    """Open what a first start has to open."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(sys.argv[1])
    listener.listen(1024)
    with select.epoll() as poll:
        keep.poll = os.dup(poll.fileno())
    keep.listener = listener.detach()
    with select.epoll.fromfd(os.dup(keep.poll)) as poll:
        poll.register(keep.listener, select.EPOLLIN)


def main() -> None:
    """Serve for ever."""
    engine = Engine("1")
    keep = engine.state("connections", Connections)
    clients = engine.fds.group("clients", kind="socket")
    if keep.listener < 0:
        start(keep)
    poll = select.epoll.fromfd(keep.poll)
    if report := engine.ready():
        phases = {event.phase: event.took_ns for event in report.phases}
        told = {"pause-ns": report.pause_ns, "phases": phases, "clients": len(clients)}
        print(json.dumps(told), flush=True)
    listener = socket.socket(fileno=keep.listener)
    while True:
        for number, _ in poll.poll():
            if number == keep.listener:
                clients.add(number := listener.accept()[0].detach())
                poll.register(number, select.EPOLLIN)
                continue
            data = os.read(number, 64)
            os.write(number, data)
            if data in (b"update\n", b"bare\n"):
                engine.update([sys.executable, *sys.argv], rehearse=data == b"update\n")
            elif not data:
                clients.discard(number)
                poll.unregister(number)
                os.close(number)


main()
