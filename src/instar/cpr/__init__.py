"""The update engine: a process replaces its program and goes on; nothing of machines in it.

Standard library only. Import the parts one by one: each stands alone, and a program that is
being resumed loads only what it needs before it serves.
"""
