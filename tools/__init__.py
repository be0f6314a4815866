"""What `make` calls: each module is a command, as in `python -m tools.train --help`."""
