"""What a ``cpr-exec-command`` that a person wrote is asked before anything is begun; a rehearsal asks the rest.

Not on the resume path. Source: own.
"""

from __future__ import annotations

import os
from itertools import pairwise

from instar.cpr.own import release
from instar.errors import CommandError
from instar.migration.channels import Address, parse_uri

TYPE_CHECKING = False
if TYPE_CHECKING:
    from instar.cpr.target import Target
    from instar.migration.migration import Migration

_NO_INCOMING = "cpr-exec-command has no -incoming: the new program would start the guest anew"


def check_unrehearsed(migration: Migration, target: Target, command: list[str]) -> None:
    """Check a command that no rehearsal will try: exactly if it is this very release, else as well as can be.

    Raises:
        CommandError: It could not take over.
    """
    own = migration.own_program
    if own is not None and _same_file(own.target.fd, target.fd) and migration.release == release():
        if command[1 : len(own.words)] != own.words[1:]:  # an interpreter, with other arguments
            raise CommandError(f"cpr-exec-command does not begin with {' '.join(own.words)}")
        if problem := migration.host.problem_of(command[len(own.words) :]):
            raise CommandError(f"cpr-exec-command: {problem}")
    elif not any("-incoming" in word for word in command[1:]):
        raise CommandError(_NO_INCOMING)


def check_meeting_point(command: list[str], address: Address) -> None:
    """Refuse a command whose ``-incoming``, if it is a word of its own, looks elsewhere: the guest would be lost.

    Raises:
        CommandError: It does.
    """
    places = [value for word, value in pairwise(command) if word in ("-incoming", "--incoming")]
    if not places or places[-1] == "defer" or places[-1].startswith("{"):
        return
    there = parse_uri(places[-1])
    if not isinstance(there, Address):
        raise CommandError(
            f"cpr-exec-command has -incoming {places[-1]}: nobody would be left to send the state"
        )
    if (os.path.realpath(there.path), there.offset) != (
        os.path.realpath(address.path),
        address.offset,
    ) or bool(there.path) != bool(address.path):
        raise CommandError(
            f"cpr-exec-command has -incoming {places[-1]}, but the state would be in {address.uri}"
        )


def _same_file(one: int, other: int) -> bool:
    mine, theirs = os.fstat(one), os.fstat(other)
    return (mine.st_dev, mine.st_ino) == (theirs.st_dev, theirs.st_ino)
