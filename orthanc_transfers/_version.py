"""The version of the plugin, stated here only."""

# Known clients compare major and minor apart and ask for 1.6 or later, so this stays 1.x, x >= 7.
__version__ = "1.8.0"
