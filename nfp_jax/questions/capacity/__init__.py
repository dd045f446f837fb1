"""How many labels a masked network can memorize: the largest n that it fits."""
