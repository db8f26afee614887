"""Block back ends: where the bytes of a guest's disk are on the host.

Import the parts one by one: a machine without disks needs only what a configuration says of them.
"""
