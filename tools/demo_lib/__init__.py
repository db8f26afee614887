"""The parts of ``tools/demo``: releases to switch between, the VM as a child process, its guest, and what is shown."""
