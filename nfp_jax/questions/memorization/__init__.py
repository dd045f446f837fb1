"""How much a masked network memorizes, how fast, and how it follows the noise."""
