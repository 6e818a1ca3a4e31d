"""python -m speechbrain_ext: the command speechbrain-ext."""

from speechbrain_ext.cli import main

if __name__ == "__main__":
    main()
