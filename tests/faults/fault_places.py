"""Where a program may fail, beside the rows of the old program's table: step, and the function that is about to begin.

What stands in :data:`instar.migration.takeover.TAKEOVER` is taken from there by ``test_matrix.py``'s look that none is
missing; the others are finer.
"""

NEW_STEPS = {
    "exec": "",  # the launcher itself: nothing of us is loaded
    "adopt": "instar.cpr.adopted:adopt",
    "limit": "instar.cli.system:_limit",
    "parse": "instar.cli.system:_understood",
    "objects": "instar.cli.vm:Vm.__init__",
    "assemble": "instar.cli.assembly:assemble",
    "host": "instar.migration.migration:Migration.restore_host",
    "network": "instar.netdev.table:Netdevs.open",
    "incoming": "instar.migration.migration:Migration.expect_incoming",
    "open": "instar.migration.incoming:Incoming._open",
    "check": "instar.migration.incoming:Incoming.check",
    "apply": "instar.migration.incoming:Incoming.load",
    "bridge-back": "instar.migration.incoming:Incoming._end_bridge",
    "go": "instar.migration.incoming:Incoming._go",
    "ready": "instar.machine.machine:Machine.get_ready",
    "disks": "instar.machine.machine:Machine.take_disks",
    "owner": "instar.migration.incoming:Incoming._commit",
    "commit": "instar.cpr.adopted:Adopted.commit",
}
CHILD_STEPS = {
    "exec": "",
    "adopt": "instar.cpr.adopted:adopt_for_rehearsal",
    "parse": "instar.cli.rehearsal:parse",
    "compare": "instar.cli.rehearsal:_compare",
    "objects": "instar.cli.vm:Vm.__init__",
    "assemble": "instar.cli.rehearsal:assemble",
    "host": "instar.migration.migration:Migration.restore_host",
    "network": "instar.netdev.table:Netdevs.open",
    "incoming": "instar.migration.migration:Migration.expect_incoming",
    "check": "instar.migration.incoming:Incoming.check",
    "save-again": "instar.migration.incoming:Incoming.rehearse",
    "answer": "instar.cli.rehearsal:tell",
}
SETTLE_STEPS = {  # after the commit: there is no way back any more, and none is needed
    "note": "instar.migration.incoming:Incoming._note_commit",
    "run": "instar.machine.machine:Machine.resume",
    "dismiss": "instar.cpr.adopted:Adopted.settle",
    "outgoing": "instar.cli.vm:Vm._load_what_could_wait",
    "own-program": "instar.migration.migration:Migration.get_ready",
    "monitors": "instar.cli.vm:Vm._make_monitor",
    "unclaimed": "instar.migration.migration:Migration.settled",
}
