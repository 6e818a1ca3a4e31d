"""The stages of a training, one after the other."""

from pathlib import Path

from speechbrain_ext.utils.errors import InputError


def training_stages(configuration):
    """The stages of a training, each with its values.

    A YAML with the key `stages` has for each stage's name a mapping of overrides,
    over which the command line takes precedence. Each stage writes to a folder of
    its name in output_folder and starts from the best checkpoint of the stage
    before. The key `stage` names the only one to run.

    Arguments
    ---------
    configuration : Configuration
        Configuration of the training.

    Returns
    -------
    list of Configuration
        One for each stage; the given one where the YAML has no stages.

    Raises
    ------
    InputError
        If there is no stage of that name, it sets keys that the YAML lacks, or
        an option of the command line has no effect in any stage.

    Example
    -------
    >>> from speechbrain_ext.config import read_configuration
    >>> path = getfixture("tmpdir") / "train.yaml"
    >>> path.write_text(
    ...     "output_folder: out\\nlr: 0.1\\nstart_from: null\\nstage: null\\n"
    ...     "stages: {frozen: {}, joint: {lr: 0.01}}\\n", "utf-8"
    ... )
    >>> for stage in training_stages(read_configuration([str(path)])):
    ...     values = stage.values()
    ...     print(values["output_folder"], values["lr"], values["start_from"])
    out/frozen 0.1 None
    out/joint 0.01 out/frozen
    """
    values = configuration.values()
    if "stages" not in values:
        configuration.check_effect([values])
        return [configuration]
    stages, only = values["stages"], values["stage"]
    if only is not None and only not in stages:
        raise InputError(
            f"stage: '{only}' is none of {', '.join(stages)} in '{configuration.path}'"
        )
    folder = Path(values["output_folder"])
    previous = values["start_from"]
    result = []
    for name, settings in stages.items():
        if not isinstance(settings, dict):
            raise InputError(
                f"stages: {name} must be a mapping such as {{lr: 0.001}}, or {{}}"
            )
        own = {"output_folder": str(folder / name), "start_from": previous}
        if only in (None, name):
            stage = configuration.with_values(settings, f"stages: {name}")
            given = {k: v for k, v in configuration.given.items() if k != "stages"}
            result.append(stage.with_values({**given, **own}))
        previous = own["output_folder"]
    configuration.check_effect([stage.values() for stage in result])
    return result
