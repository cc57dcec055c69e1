"""The commands as plain functions: each looks, decides, and returns a Report."""
