"""What every HTML page of this project shares: one file each that needs nothing else, not even a network."""
