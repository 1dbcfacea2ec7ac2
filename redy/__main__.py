"""`python -m redy`: the command line."""

from redy.cli.main import main

if __name__ == "__main__":
    main()
