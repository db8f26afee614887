"""The machine: run states, harts, clocks, and the order in which they stop and start."""
