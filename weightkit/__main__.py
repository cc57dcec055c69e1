"""``python -m weightkit``."""

from weightkit.cli.entry import main

main()
