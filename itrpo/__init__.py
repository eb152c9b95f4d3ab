"""Offline reinforcement learning in JAX, around implicit trust region policy optimization (iTRPO).

The public names below are imported when they are first used, so `import itrpo` loads neither JAX nor gymnasium.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from itrpo.data.convert import convert
    from itrpo.data.health import check_dataset
    from itrpo.data.load import load_dataset
    from itrpo.errors import DivergenceError, InputError, ItrpoError, StorageError
    from itrpo.online.finetune import finetune
    from itrpo.ope.estimate import JudgeOptions
    from itrpo.ope.runs import judge
    from itrpo.ope.select import select
    from itrpo.options import GuardOptions, RunOptions
    from itrpo.policy import load_policy
    from itrpo.shipping.export import export
    from itrpo.training.compare import compare
    from itrpo.training.critic import load_critic
    from itrpo.training.evaluate import evaluate, video
    from itrpo.training.train import train
    from itrpo.types import Dataset

__version__ = "0.1.0"

__all__ = [
    "Dataset",
    "DivergenceError",
    "GuardOptions",
    "InputError",
    "ItrpoError",
    "JudgeOptions",
    "RunOptions",
    "StorageError",
    "__version__",
    "check_dataset",
    "compare",
    "convert",
    "evaluate",
    "export",
    "finetune",
    "judge",
    "load_critic",
    "load_dataset",
    "load_policy",
    "select",
    "train",
    "video",
]

_HOMES = {
    "Dataset": "itrpo.types",
    "DivergenceError": "itrpo.errors",
    "GuardOptions": "itrpo.options",
    "InputError": "itrpo.errors",
    "ItrpoError": "itrpo.errors",
    "JudgeOptions": "itrpo.ope.estimate",
    "RunOptions": "itrpo.options",
    "StorageError": "itrpo.errors",
    "check_dataset": "itrpo.data.health",
    "compare": "itrpo.training.compare",
    "convert": "itrpo.data.convert",
    "evaluate": "itrpo.training.evaluate",
    "export": "itrpo.shipping.export",
    "finetune": "itrpo.online.finetune",
    "judge": "itrpo.ope.runs",
    "load_critic": "itrpo.training.critic",
    "load_dataset": "itrpo.data.load",
    "load_policy": "itrpo.policy",
    "select": "itrpo.ope.select",
    "train": "itrpo.training.train",
    "video": "itrpo.training.evaluate",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value  # the next access does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
