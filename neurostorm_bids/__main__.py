"""``python -m neurostorm_bids`` is ``neurostorm``."""

from neurostorm_bids.command.main import main

if __name__ == "__main__":
    main(prog_name="neurostorm")
