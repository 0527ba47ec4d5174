"""`python -m cxredge` is `cxredge`."""

from cxredge.cli import main

if __name__ == "__main__":
    main()
