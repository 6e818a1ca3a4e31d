"""Low-rank updates of linear layers (LoRA, arXiv 2106.09685)."""

from collections.abc import Sequence

from torch import nn

from speechbrain_ext.utils.errors import InputError


def add_lora(
    model: nn.Module, rank: int, alpha: int, targets: Sequence[str]
) -> nn.Module:
    """Adds trained low-rank updates to linear layers.

    What was trained before stays so.

    Arguments
    ---------
    model : torch.nn.Module
        The model.
    rank : int
        Rank of the updates.
    alpha : int
        The updates count alpha / rank times.
    targets : list of str
        Names of the linear layers.

    Returns
    -------
    torch.nn.Module
        The same model, changed.

    Raises
    ------
    InputError
        If peft is not installed, or there is no layer of one of the names.

    Example
    -------
    >>> model = nn.Sequential(nn.Linear(8, 8)).requires_grad_(False)
    >>> model = add_lora(model, rank=2, alpha=4, targets=["0"])
    >>> sum(p.numel() for p in model.parameters() if p.requires_grad)
    32
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise InputError(
            'lora_rank: LoRA needs peft: pip install -e ".[lora]"; 0 leaves it out'
        ) from None
    names = {name.split(".")[-1]: module for name, module in model.named_modules()}
    for target in targets:
        if not isinstance(names.get(target), nn.Linear):
            known = sorted(n for n, m in names.items() if isinstance(m, nn.Linear))
            raise InputError(
                f"lora_targets: there is no linear layer '{target}'; the encoder "
                f"has {', '.join(known)}"
            )
    trained = {p for p in model.parameters() if p.requires_grad}
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(targets))
    model = inject_adapter_in_model(config, model)
    # peft freezes what it does not add.
    for name, parameter in model.named_parameters():
        parameter.requires_grad = parameter in trained or "lora_" in name
    return model
