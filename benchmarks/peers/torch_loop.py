"""TD3+BC, IQL and iTRPO as one would write them today in plain PyTorch, on a CPU, for speed.

PEER/bin/python benchmarks/peers/torch_loop.py DATA.npz --algorithm itrpo --preset quick --steps 2000 --seeds 4

Data, rows and noise are tensors on the device; Adam is the fused one; actors step with the critics' parameters held, so
that no gradient is computed which nobody asked for; pi(s) is computed once for both of iTRPO's losses. Several seeds
go in as many processes as there are cores, each with one thread: faster than one after another with all threads.
Critics are two modules: as batched products they were no faster. `--compile` compiles the losses and their
gradients.
"""

from __future__ import annotations

import copy
import json
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import common
import torch
import torch.nn.functional as F
from common import BATCH_SIZE, GAMMA, Task
from torch import Tensor, nn

Batch = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]  # s, a, r, s', 1 - d
Moments = tuple[Tensor, Tensor]  # mean and log standard deviation
Losses = dict[str, Tensor]


# --- networks ------------------------------------------------------------------------------------------------------


def mlp(sizes: tuple[int, ...], layer_norm: bool = False) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes[:-1]):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        if layer_norm:
            layers.append(nn.LayerNorm(outputs, eps=1e-6))
    return nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1]))


class Critics(nn.Module):
    """Two Q functions -> [2, B]."""

    def __init__(self, inputs: int, hidden: tuple[int, ...], layer_norm: bool):
        super().__init__()
        self.members = nn.ModuleList(mlp((inputs, *hidden, 1), layer_norm) for _ in range(2))

    def forward(self, observation: Tensor, action: Tensor) -> Tensor:
        inputs = torch.cat([observation, action], dim=1)
        return torch.cat([member(inputs) for member in self.members], dim=1).T


def gaussian(network: nn.Module, observation: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and log standard deviation before the tanh."""
    mean, log_std = network(observation).chunk(2, dim=1)
    return mean, log_std.clamp(-5.0, 2.0)


def normal_log_prob(value: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    return -(0.5 * ((value - mean) * torch.exp(-log_std)).square() + log_std + 0.5 * math.log(2 * math.pi)).sum(1)


def normal_kl(mean: Tensor, log_std: Tensor, other_mean: Tensor, other_log_std: Tensor) -> Tensor:
    ratio = torch.exp(2 * (log_std - other_log_std))
    distance = ((mean - other_mean) * torch.exp(-other_log_std)).square()
    return (0.5 * (ratio + distance - 1) + other_log_std - log_std).sum(1)


def frozen_copy(network: nn.Module) -> nn.Module:
    return copy.deepcopy(network).requires_grad_(False)


def adam(network: nn.Module, rate: float) -> torch.optim.Adam:
    return torch.optim.Adam(network.parameters(), lr=rate, fused=True)


def step(optimizer: torch.optim.Optimizer, loss: Tensor) -> Tensor:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return loss.detach()


@contextmanager
def held(network: nn.Module) -> Iterator[None]:
    """No gradients of its parameters: what the actor's loss asks of the critics is the action's alone."""
    network.requires_grad_(False)
    yield
    network.requires_grad_(True)


@torch.no_grad()
def polyak(network: nn.Module, target: nn.Module, rate: float) -> None:
    torch._foreach_lerp_(list(target.parameters()), list(network.parameters()), rate)


def squared_error(q: Tensor, targets: Tensor) -> Tensor:
    return (q - targets).square().mean(1).sum()


# --- algorithms ----------------------------------------------------------------------------------------------------


class TD3BC:
    noises = 1
    compiled = ("targets", "critic_loss", "policy_loss")

    def __init__(self, task: Task, observation_dim: int, action_dim: int):
        c = self.constants = task.constants
        self.policy = mlp((observation_dim, *c.hidden, action_dim))
        self.critics = Critics(observation_dim + action_dim, c.hidden, False)
        self.target_policy, self.target_critics = frozen_copy(self.policy), frozen_copy(self.critics)
        self.policy_optimizer = adam(self.policy, c.policy_rate)
        self.critic_optimizer = adam(self.critics, c.critic_rate)
        self.steps = 0

    @torch.no_grad()
    def targets(self, batch: Batch, noise: Tensor) -> Tensor:
        _, _, reward, next_observation, continues = batch
        noise = (0.2 * noise[0]).clamp(-0.5, 0.5)
        next_action = (torch.tanh(self.target_policy(next_observation)) + noise).clamp(-1.0, 1.0)
        return reward + GAMMA * continues * self.target_critics(next_observation, next_action).amin(0)

    def critic_loss(self, batch: Batch, targets: Tensor) -> Tensor:
        return squared_error(self.critics(batch[0], batch[1]), targets)

    def policy_loss(self, batch: Batch) -> Tensor:
        observation, action = batch[:2]
        pi = torch.tanh(self.policy(observation))
        q = self.critics.members[0](torch.cat([observation, pi], dim=1))
        return -2.5 / q.abs().mean().detach() * q.mean() + F.mse_loss(pi, action)

    def update(self, batch: Batch, noise: Tensor) -> Losses:
        losses = {"critic_loss": step(self.critic_optimizer, self.critic_loss(batch, self.targets(batch, noise)))}
        self.steps += 1
        if self.steps % 2 == 0:
            with held(self.critics):
                losses["policy_loss"] = step(self.policy_optimizer, self.policy_loss(batch))
            polyak(self.critics, self.target_critics, self.constants.polyak_rate)
            polyak(self.policy, self.target_policy, self.constants.polyak_rate)
        return losses


class IQL:
    noises = 0
    compiled = ("least_q", "value_loss", "advantage_and_targets", "policy_loss", "critic_loss")

    def __init__(self, task: Task, observation_dim: int, action_dim: int):
        c = self.constants = task.constants
        self.policy = mlp((observation_dim, *c.hidden, action_dim))
        self.policy.register_parameter("log_std", nn.Parameter(torch.zeros(action_dim)))
        self.critics = Critics(observation_dim + action_dim, c.hidden, False)
        self.value = mlp((observation_dim, *c.hidden, 1))
        self.target_critics = frozen_copy(self.critics)
        self.policy_optimizer = adam(self.policy, c.policy_rate)
        self.critic_optimizer = adam(self.critics, c.critic_rate)
        self.value_optimizer = adam(self.value, c.critic_rate)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.policy_optimizer, task.steps)

    @torch.no_grad()
    def least_q(self, batch: Batch) -> Tensor:
        return self.target_critics(batch[0], batch[1]).amin(0)

    def value_loss(self, batch: Batch, q: Tensor) -> Tensor:
        error = q - self.value(batch[0]).squeeze(1)
        return (torch.where(error > 0, 0.7, 0.3) * error.square()).mean()

    @torch.no_grad()
    def advantage_and_targets(self, batch: Batch, q: Tensor) -> tuple[Tensor, Tensor]:
        observation, _, reward, next_observation, continues = batch
        advantage = q - self.value(observation).squeeze(1)
        return advantage, reward + GAMMA * continues * self.value(next_observation).squeeze(1)

    def policy_loss(self, batch: Batch, advantage: Tensor) -> Tensor:
        weight = torch.exp(3.0 * advantage).clamp(max=100.0)
        mean, log_std = torch.tanh(self.policy(batch[0])), self.policy.log_std.clamp(-5.0, 2.0)
        return -(weight * normal_log_prob(batch[1], mean, log_std)).mean()

    def critic_loss(self, batch: Batch, targets: Tensor) -> Tensor:
        return squared_error(self.critics(batch[0], batch[1]), targets)

    def update(self, batch: Batch, noise: Tensor) -> Losses:
        q = self.least_q(batch)
        losses = {"value_loss": step(self.value_optimizer, self.value_loss(batch, q))}
        advantage, targets = self.advantage_and_targets(batch, q)
        losses["policy_loss"] = step(self.policy_optimizer, self.policy_loss(batch, advantage))
        losses["critic_loss"] = step(self.critic_optimizer, self.critic_loss(batch, targets))
        self.schedule.step()
        polyak(self.critics, self.target_critics, self.constants.polyak_rate)
        return losses


class ITRPO:
    noises = 2
    compiled = ("targets", "critic_loss", "policy_loss")

    def __init__(self, task: Task, observation_dim: int, action_dim: int):
        c = self.constants = task.constants
        self.behavior = mlp((observation_dim, *c.hidden, 2 * action_dim)).requires_grad_(False)
        self.policy = copy.deepcopy(self.behavior).requires_grad_(True)
        self.critics = Critics(observation_dim + action_dim, c.hidden, c.layer_norm)
        self.target_critics = frozen_copy(self.critics)
        self.policy_optimizer = adam(self.policy, c.policy_rate)
        self.critic_optimizer = adam(self.critics, c.critic_rate)

    @torch.no_grad()
    def targets(self, batch: Batch, noise: Tensor, behavior: Moments, own: Moments) -> Tensor:
        """Eq. (5). behavior, own: at s."""
        _, action, reward, next_observation, continues = batch
        alpha, tau = self.constants.alpha, self.constants.tau
        u = torch.atanh(action.clamp(-0.999, 0.999))
        log_ratio = normal_log_prob(u, *own) - normal_log_prob(u, *behavior)
        mean, log_std = gaussian(self.policy, next_observation)
        kl = normal_kl(mean, log_std, *gaussian(self.behavior, next_observation))
        next_action = torch.tanh(mean + torch.exp(log_std) * noise[0])
        next_value = self.target_critics(next_observation, next_action).amin(0) - alpha * kl
        return reward + tau * alpha * log_ratio + GAMMA * continues * next_value

    def critic_loss(self, batch: Batch, targets: Tensor) -> Tensor:
        return squared_error(self.critics(batch[0], batch[1]), targets)

    def policy_loss(self, batch: Batch, noise: Tensor, behavior: Moments, own: Moments) -> Tensor:
        mean, log_std = own
        q = self.critics(batch[0], torch.tanh(mean + torch.exp(log_std) * noise[1])).amin(0)
        return -(q - self.constants.alpha * normal_kl(mean, log_std, *behavior)).mean()

    def update(self, batch: Batch, noise: Tensor) -> Losses:
        behavior, own = gaussian(self.behavior, batch[0]), gaussian(self.policy, batch[0])  # once, for both losses
        targets = self.targets(batch, noise, behavior, own)
        losses = {"critic_loss": step(self.critic_optimizer, self.critic_loss(batch, targets))}
        with held(self.critics):
            losses["policy_loss"] = step(self.policy_optimizer, self.policy_loss(batch, noise, behavior, own))
        polyak(self.critics, self.target_critics, self.constants.polyak_rate)
        return losses


ALGORITHMS: dict[str, Any] = {"td3_bc": TD3BC, "iql": IQL, "itrpo": ITRPO}


# --- the loop ------------------------------------------------------------------------------------------------------


def make(task: Task, observation_dim: int, action_dim: int, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    it = ALGORITHMS[task.algorithm](task, observation_dim, action_dim)
    for name in it.compiled if task.compiled else ():
        setattr(it, name, torch.compile(getattr(it, name)))
    return it


def train(task: Task, warm: Callable[[], Any]) -> dict[str, Any]:
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    data = [torch.from_numpy(column) for column in common.transitions(task).values()]
    rows, action_dim = data[1].shape

    def run(it: Any, steps: int) -> None:
        for _ in range(steps):
            index = torch.randint(rows, (BATCH_SIZE,))
            noise = torch.randn(it.noises, BATCH_SIZE, action_dim)
            it.update(tuple(column[index] for column in data), noise)

    its = [make(task, data[0].shape[1], action_dim, seed) for seed in task.seeds]
    for it in its:
        run(it, 20)
    warm()
    for it in its:
        run(it, task.steps)
    return {"library": "torch", "version": torch.__version__}


# --- the same work as itrpo's: see same_work.py --------------------------------------------------------------------


def check(task: Task) -> dict[str, Any]:
    given = {name: torch.from_numpy(array) for name, array in common.given(task).items()}
    batches = [given[name] for name in common.COLUMNS]
    it = make(task, batches[0].shape[-1], batches[1].shape[-1])

    @torch.no_grad()
    def load(network: nn.Module, name: str, of: Any = slice(None)) -> None:
        for i, layer in enumerate(layer for layer in network.modules() if isinstance(layer, nn.Linear)):
            layer.weight.copy_(given[f"{name}.{i}.weight"][of])
            layer.bias.copy_(given[f"{name}.{i}.bias"][of])

    for name in ("policy", "behavior", "value"):
        if hasattr(it, name):
            load(getattr(it, name), name)
    for i, member in enumerate(it.critics.members):
        load(member, "critics", i)
    it.target_critics.load_state_dict(it.critics.state_dict())
    if hasattr(it, "target_policy"):
        it.target_policy.load_state_dict(it.policy.state_dict())
    losses = []
    for k, noise in enumerate(given["noise"]):
        new = it.update(tuple(column[k] for column in batches), noise)
        losses.append({name: value.item() for name, value in new.items()})
    names = {"policy": "policy", "critics": "critics", "target_critics": "target critics", "value": "value"}
    found = {
        title: common.summary([parameter.detach().numpy() for parameter in getattr(it, name).parameters()])
        for name, title in names.items()
        if hasattr(it, name)
    }
    return {"losses": losses, "parameters": found}


if __name__ == "__main__":
    task, processes = common.parse(__doc__, "as many as there are cores and seeds")
    if task.check:
        print(json.dumps(check(task)))
    else:
        common.run(train, task, processes or min(common.cores(), len(task.seeds)))
