"""`python -m speechbrain_ext.cli`, as `python -m speechbrain_ext`."""

from speechbrain_ext.cli import main

if __name__ == "__main__":
    main()
