"""Monitors: HMP for people and QMP for programs, over one table of typed commands.

Only ``state`` is on the resume path; everything else is imported once the guest runs again.
"""
