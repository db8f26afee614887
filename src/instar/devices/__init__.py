"""What the guest sees besides its CPU: one folder per device."""
