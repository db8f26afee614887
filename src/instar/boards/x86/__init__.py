"""How an x86-64 guest starts: boot protocols, page tables, and the tables that describe the board to it."""
