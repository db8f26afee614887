"""``instar doctor``: what this host can do for a VM, what it lacks, and which command mends that.

:mod:`facts` reads the host and judges nothing; :mod:`findings` judges facts and reads nothing.
"""
