"""`python -m simsiam_zoo`: the same as the command `simsiam-zoo`."""

from simsiam_zoo.cli import main

if __name__ == "__main__":
    main()
