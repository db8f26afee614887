"""For authors of devices: a guest driver and host handles that do what a test says."""
