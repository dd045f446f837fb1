"""Configurations: each file's ``get_config(preset)`` is what launch.py takes."""
