"""What a program lets the kernel forbid it: system calls (seccomp)."""
