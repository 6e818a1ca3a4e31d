"""Old names of some commands, which go with the next release."""

import warnings


def run_command(command, arguments):
    """Runs what `python -m speechbrain_ext.tools.NAME` is called now, and warns.

    Arguments
    ---------
    command : str
        Of speechbrain-ext.
    arguments : list of str
        Of the command line.
    """
    from speechbrain_ext.cli import main

    warnings.warn(
        f"call it as `speechbrain-ext {command}` now; python -m speechbrain_ext.tools "
        "goes with the next release",
        FutureWarning,
        stacklevel=2,
    )
    main([command, *arguments])
