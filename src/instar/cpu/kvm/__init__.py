"""KVM: the host's processor runs the guest's instructions, on x86-64 (docs/decisions/0012-a-second-cpu.md)."""
