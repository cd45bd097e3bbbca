"""What the tests stand on. Nothing in here imports pyoffload: the lab must not believe what it is there to check."""
