"""The few types that the parts of itrpo hand to each other. Axes: B rows, O and A the sizes of an observation and an
action, n actions at one state, S seeds, N the rows of a file or the members of an ensemble.

`Transition`, `SpaceSpec`, behaviour models and `Algorithm` are for computation; `Episodes`, `Dataset` and `DataSource`
hold NumPy arrays on the host.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from jax import Array
    from jaxtyping import Float, Int, Key

Params = Any  # a pytree of arrays; its network knows its structure
Metrics = dict[str, Any]  # name -> scalar; the same names at every step of one algorithm


class Transition(NamedTuple):
    """Rows (s, a, r, s') of a dataset; float32, on the host (NumPy) or on the device.

    Of discrete data (`DiscreteSpec`) both actions are int32 [B], numbers from 0 to n - 1.
    """

    observation: Float[Any, "B O"]
    action: Float[Any, "B A"]  # in [-1, 1]
    reward: Float[Any, "B"]
    continues: Float[Any, "B"]  # 1 - terminal. A timeout does not stop bootstrapping.
    next_observation: Float[Any, "B O"]
    next_action: Float[Any, "B A"]  # the logged a' of the same episode; zeros at its end, and where it is not known


class SpaceSpec(NamedTuple):
    """Sizes that networks are built from."""

    observation_dim: int
    action_dim: int


class DiscreteSpec(NamedTuple):
    """The same where an action is one of n choices."""

    observation_dim: int
    num_actions: int


@dataclass(frozen=True)
class DataSource:
    """Where a dataset came from; goes into a run's provenance as it is."""

    name: str  # "hopper-medium-v2", or the file's stem, or "arrays"
    kind: str  # "d4rl", "hdf5", "npz", "arrays", "generated", "minari", "parquet", "csv"
    path: str | None = None
    sha256: str | None = None  # of the file's bytes; of the arrays' bytes where there is no file
    url: str | None = None  # where it was downloaded from, if it was
    recipe: Mapping[str, Any] = field(default_factory=dict)  # how it was generated, if it was

    @property
    def where(self) -> str:
        """What a message calls it: its file, or its name."""
        return self.path or ("the arrays" if self.kind == "arrays" else self.name)


class Attributes(NamedTuple):
    """What a file says of its columns, one for each dimension; None: nothing. See `itrpo.data.attributes`."""

    action_low: tuple[float, ...] | None = None  # the environment's, or the actuators'; -inf: it has none
    action_high: tuple[float, ...] | None = None
    observation_low: tuple[float, ...] | None = None
    observation_high: tuple[float, ...] | None = None
    action_names: tuple[str, ...] | None = None
    observation_names: tuple[str, ...] | None = None
    action_units: tuple[str, ...] | None = None
    observation_units: tuple[str, ...] | None = None
    num_actions: int | None = None  # actions number so many choices, from action_low on; None: they are quantities
    d4rl_view: bool = False  # D4RL's own files and this package's made sets: rows become transitions as in D4RL
    minari: str | None = None  # JSON: what else `metadata.json` of a Minari dataset says of where it came from


NO_ATTRIBUTES = Attributes()

Reference = tuple[float, float]  # the returns that score 0 and 100


@dataclass(frozen=True)
class Episodes:
    """The rows of a file in their order, as the file has them: no value is ever edited here.

    `next_observations` is None where the next row is the successor (D4RL's meaning); readers of D4RL files leave it
    None even if the file has the key, as D4RL's own Q-learning view does.
    """

    observations: np.ndarray  # [N, O] float32
    actions: np.ndarray  # [N, A] float32; choices are [N, 1] until `itrpo.data.load` says that they are
    rewards: np.ndarray  # [N] float32
    terminals: np.ndarray  # [N] bool: the environment ended the episode
    timeouts: np.ndarray  # [N] bool: the clock did
    next_observations: np.ndarray | None  # [N, O] float32
    behavior_log_probs: np.ndarray | None  # [N] float32: log density of the raw action where the file knows it
    env_id: str | None  # gymnasium id for evaluation, if the file or the name says
    source: DataSource
    attributes: Attributes = NO_ATTRIBUTES


BoundsFrom = Literal["given", "declared", "assumed"]  # by the user; by the file; -1 and 1, as neither said anything


@dataclass(frozen=True)
class Dataset:
    """What training reads: transitions on the host, plus what a report needs to say about them.

    `episode_returns` are sums of raw rewards over completed episodes (D4RL's convention: a file's unfinished last
    episode does not count); `episode_lengths` are their numbers of rows.
    """

    name: str
    transitions: Transition = field(repr=False)  # NumPy arrays
    env_id: str | None
    action_low: np.ndarray  # [A]: the raw action that became -1; of discrete data [1]: the first choice
    action_high: np.ndarray  # [A]: the raw action that became +1; of discrete data [1]: the last one
    episode_returns: np.ndarray = field(repr=False)  # [E] float64
    episode_lengths: np.ndarray = field(repr=False)  # [E] int64
    num_rows: int  # rows of the file, before any was dropped
    num_terminals: int
    num_timeouts: int
    source: DataSource
    # [B] float32: log pi_beta(a|s), of actions in [-1, 1], if known
    behavior_log_probs: np.ndarray | None = field(default=None, repr=False)
    bounds: BoundsFrom = "given"  # whose word action_low and action_high are
    attributes: Attributes = NO_ATTRIBUTES  # as the file has them, whatever bounds were given
    discrete: str | None = None  # what the actions are if they number choices, and nobody said that they are quantities
    notes: tuple[str, ...] = ()  # what a user should know of its own data before training on it
    stack: int = 1  # observations that are one here: `itrpo.data.history`
    starts: np.ndarray | None = field(default=None, repr=False)  # [E] int64: each episode's first transition, if known
    holdout: float = 0.0  # share of the episodes that are not here, but in `held`: `itrpo.data.holdout`
    held: Dataset | None = field(default=None, repr=False)
    num_actions: int | None = None  # an action is one of so many choices; None: it is a vector
    reference: Reference | None = None  # of returns in env_id, by the dataset's own word; None: it says nothing

    @property
    def spec(self) -> SpaceSpec | DiscreteSpec:
        size = self.transitions.observation.shape[1]
        if self.num_actions is not None:
            return DiscreteSpec(size, self.num_actions)
        return SpaceSpec(size, self.transitions.action.shape[1])

    @property
    def kind(self) -> Literal["continuous", "discrete"]:
        """Of its actions."""
        return "continuous" if self.num_actions is None else "discrete"

    @property
    def frame(self) -> SpaceSpec | DiscreteSpec:
        """Sizes without history: those of the environment. In a history an action is as many numbers as in a file."""
        size, numbers = self.spec[0], len(self.action_low)
        return self.spec._replace(observation_dim=(size + numbers) // self.stack - numbers)

    @cached_property
    def observation_moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation [O] float64 of the observations."""
        observation = self.transitions.observation
        return observation.mean(axis=0, dtype="float64"), observation.std(axis=0, dtype="float64")

    def __len__(self) -> int:
        return len(self.transitions.reward)


class RewardRule(NamedTuple):
    """Rewards as training sees them: `scale * r + shift`, by what a source does to the rewards of a kind of task."""

    scale: float = 1.0
    shift: float = 0.0
    by_return_range: bool = False  # scale is multiplied by 1000 / (largest - smallest return of a trajectory) (IQL)


class Preset(NamedTuple):
    """A named set of constants of one algorithm."""

    config: Any  # the algorithm module's Config
    behavior: str | None = None  # registered behaviour model that is fitted first
    behavior_config: Any = None  # its Config; None: the model's defaults
    steps: int = 1_000_000  # gradient steps in the source
    behavior_steps: int = 1_000_000  # gradient steps of the fit of pi_beta in the source
    normalize_observations: bool = False
    antmaze_normalize_observations: bool = False  # in place of it on AntMaze
    rewards: RewardRule = RewardRule()
    antmaze_rewards: RewardRule = RewardRule()  # in place of `rewards` on AntMaze
    tasks: str | None = None  # itrpo/algorithms/tasks/NAME.toml: constants that differ by task, with their sources
    scaled_fields: tuple[str, ...] = ()  # fields of `config` that count gradient steps: as much of a run as of `steps`
    note: str = ""  # a sentence that a run prints when it begins
    model_constants: Mapping[str, Any] = MappingProxyType({})  # of a model of pi_beta that is not the preset's own


class AlgorithmEntry(NamedTuple):
    """What the registry knows an algorithm by."""

    config: type  # frozen dataclass; fields of nested dataclasses are set by their own names
    presets: Mapping[str, Preset]
    default_preset: str
    behaviors: tuple[str, ...]  # behaviour models it can use; empty: it fits none
    make: Callable[..., Algorithm]  # (config, spec, behavior: BehaviorModel | None) -> Algorithm
    # (config, behaviour model's name, its config): raises InputError for values that do not go together
    validate: Callable[..., None] | None = None
    actions: Literal["continuous", "discrete"] = "continuous"  # which it takes; then its spec is a `DiscreteSpec`
    # (config) -> whether it reads `Transition.next_action`: then it trains on the rows where that is known
    reads_next_action: Callable[[Any], bool] = lambda config: False


class BehaviorEntry(NamedTuple):
    """What the registry knows a behaviour model by."""

    config: type
    make: Callable[..., BehaviorModel]  # (config, spec, fit_steps) -> model
    actions: Literal["continuous", "discrete"] = "continuous"


class DensityModel(NamedTuple):
    """A model of pi_beta whose density is known, as pure functions over `params`.

    Densities are of u = atanh(a): in a ratio of two policies the tanh Jacobian cancels, so it never appears.
    """

    init: Callable[[Key[Array, ""]], Any]  # -> state of the fit (params, optimiser, dual); arrays only
    fit_step: Callable[[Any, Transition, Key[Array, ""]], tuple[Any, Metrics]]  # one minibatch of maximum likelihood
    params: Callable[[Any], Params]  # state of the fit -> the params that the functions below take
    sample: Callable[[Params, Float[Array, "B O"], Key[Array, ""]], Float[Array, "B A"]]  # -> u
    mode: Callable[[Params, Float[Array, "B O"]], Float[Array, "B A"]]  # -> u
    export: Callable[[Params], dict[str, Any]]  # as `Acting.export`, for acting with the model's mode
    batch_size: int  # rows per `fit_step`
    pre_tanh_log_prob: Callable[[Params, Float[Array, "B O"], Float[Array, "B *n A"]], Float[Array, "B *n"]]  # of u
    moments: Callable[[Params, Float[Array, "B O"]], tuple[Array, Array]] | None  # mean, log_std; None: not a Gaussian
    # noise ~ N(0, I) -> u ~ b(.|s); None: it has no such map
    transport: Callable[[Params, Float[Array, "B O"], Float[Array, "B *n A"]], Float[Array, "B *n A"]] | None = None


class LatentModel(NamedTuple):
    """A model of pi_beta with a latent variable z [L], whose density has no closed form. The first seven members are
    those of `DensityModel`."""

    init: Callable[[Key[Array, ""]], Any]
    fit_step: Callable[[Any, Transition, Key[Array, ""]], tuple[Any, Metrics]]
    params: Callable[[Any], Params]
    sample: Callable[[Params, Float[Array, "B O"], Key[Array, ""]], Float[Array, "B A"]]
    mode: Callable[[Params, Float[Array, "B O"]], Float[Array, "B A"]]
    export: Callable[[Params], dict[str, Any]]
    batch_size: int
    latent_dim: int  # L
    decode: Callable[[Params, Float[Array, "B O"], Float[Array, "B *n L"]], Float[Array, "B *n A"]]  # z -> u
    # (params, observation, action, noise) -> bound on -log pi_beta(a|s), up to scale
    negative_elbo: Callable[[Params, Float[Array, "B O"], Float[Array, "B A"], Float[Array, "B L"]], Float[Array, "B"]]


class CategoricalModel(NamedTuple):
    """A model of pi_beta over n choices. The first three members and `batch_size` are those of `DensityModel`."""

    init: Callable[[Key[Array, ""]], Any]
    fit_step: Callable[[Any, Transition, Key[Array, ""]], tuple[Any, Metrics]]
    params: Callable[[Any], Params]
    export: Callable[[Params], dict[str, Any]]  # as `Acting.export`, for acting with the likeliest choice
    batch_size: int
    logits: Callable[[Params, Float[Array, "B O"]], Float[Array, "B n"]]  # log pi_beta, up to a number for each state


BehaviorModel = DensityModel | LatentModel | CategoricalModel


class Acting(NamedTuple):
    """How the policy in a trained state acts. Of n choices an action is its number, int32 [B], a density the log of a
    probability.
    """

    act: Callable[[Any, Float[Array, "B O"], Key[Array, ""], bool], Float[Array, "B A"]]  # (.., key, greedy) -> action
    # log density of actions as they are sampled; None: the policy is deterministic
    log_prob: Callable[[Any, Float[Array, "B O"], Float[Array, "B A"]], Float[Array, "B"]] | None
    export: Callable[[Any], dict[str, Any]]  # what `itrpo.policy` needs to act: {"kind": str, name: array}


class Snapshot(NamedTuple):
    """A moment of training on fixed rows (s, a, r, s'), with fixed noise: from several, `training.watch` computes what
    changed over updates.
    """

    mean: Float[Array, "B A"]  # of the Gaussian policy, before the tanh
    log_std: Float[Array, "B A"]
    target: Float[Array, "B"]  # y(s,a), what the critics regress on
    implicit_q: Float[Array, "B"]  # Theorem 1's Q' = min_i Q_i(s,a) - tau alpha log(pi/pi_beta)(a|s)
    error: Float[Array, "B"]  # min_i Q_i(s,a) - y(s,a): Eq. (7)'s epsilon at the rows


class DiscreteSnapshot(NamedTuple):
    """`Snapshot` of a policy over n choices."""

    log_probs: Float[Array, "B n"]
    target: Float[Array, "B"]
    implicit_q: Float[Array, "B"]
    error: Float[Array, "B"]


class Algorithm(NamedTuple):
    """One algorithm for one seed, built by its module's `make(config, spec, behavior)`.

    Config and spec are bound, so the functions take arrays alone and can be vmapped, scanned and donated. A state is a
    NamedTuple of arrays. What others look for in it: `critic`, a `Trainable` with parameters [N, ...], if
    `value_metric` is named; `behavior_params`, of pi_beta, if a model of it was fitted first; these never change.
    """

    init: Callable[[Key[Array, ""], Params], Any]  # (key, fitted behaviour params or None) -> state
    update: Callable[
        [Any, Transition, Key[Array, ""], Int[Array, ""]], tuple[Any, Metrics]
    ]  # (state, batch, key, step)
    acting: Acting
    probes: Callable[[Any, Transition, Key[Array, ""]], Metrics]  # on fixed data; names begin with probe_ (Figure 2)
    batch_size: int  # rows per `update`
    # the metric of `update` that is a mean of Q: a run has diverged where it leaves what rewards allow. None: no critic
    value_metric: str | None = "q_target"
    # (state, fixed rows, key) -> what is watched between evaluations; None: nothing is
    watch: Callable[[Any, Transition, Key[Array, ""]], Snapshot | DiscreteSnapshot] | None = None
    # (state, observation, action) -> Q(s,a) of each of its N critics, as it acts; None: no critic of actions
    q_values: Callable[[Any, Float[Array, "B O"], Float[Array, "B A"]], Float[Array, "N B"]] | None = None
