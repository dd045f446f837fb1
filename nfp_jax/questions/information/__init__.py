"""How much a mask knows of the data that it was found on, in nats, between two ends."""
