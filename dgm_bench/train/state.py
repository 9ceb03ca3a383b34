"""All that changes while a stage is trained: what a checkpoint holds."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, cast

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn

from dgm_bench.errors import RunFailure
from dgm_bench.models.capabilities import SolvesODE
from dgm_bench.models.precise import widest
from dgm_bench.spec import OptimizerSpec, Stage
from dgm_bench.train.averaging import ParameterAverage
from dgm_bench.train.flat import FlatParameters
from dgm_bench.train.optimizers import build_optimizer
from dgm_bench.train.precision import precision_on
from dgm_bench.train.sampler import ShuffledBatches
from dgm_bench.train.schedule import Schedule
from dgm_bench.train.tally import Tally
from dgm_bench.train.world import ALONE, World

if TYPE_CHECKING:
    from dgm_bench.train.sharded import Sharded


class TrainingState:
    """The model and all else that a step or a validation changes.

    Args:
        stage: The recipe's stage.
        model: On the device.
        examples: The training examples, on the device or, if they are too many, on the host.
        seed: Of the run; decides the order of the data and the noise.
        world: The processes of the run; of a large model each keeps a part.
    """

    def __init__(
        self,
        stage: Stage,
        model: nn.Module,
        examples: Num[Tensor, "n *event"],
        seed: int,
        world: World = ALONE,
    ) -> None:
        self.model = model
        self.sharded: Sharded | None = None
        if world.size > 1:
            from dgm_bench.train.sharded import sharded  # here: it imports all of FSDP

            self.sharded = sharded(model, world)
        # Data too large for the device stays where it is; batches are then moved.
        self.device = next(model.parameters(), examples).device
        self.sampler = ShuffledBatches(
            len(examples), stage.batch_size, seed, examples.device, stage.last_batch
        )
        self.optimizer = build_optimizer(stage.optimizer, model, stage.discriminator)
        self.parameters = list(model.parameters())
        #: What is stepped in place of the parameters one by one, if anything.
        self.flat: FlatParameters | None = None
        #: States of torch's own generators as this run left them, where other runs take turns.
        self.held_generators: dict[str, Tensor | None] | None = None
        self.schedule = Schedule(stage.schedule, stage.optimizer.lr)
        self.noise = torch.Generator(self.device).manual_seed(seed)
        decay = stage.average_decay
        self.average = ParameterAverage(model, decay) if decay is not None else None
        self.best_parameters: dict[str, Tensor] | None = None
        self.loss_sum = torch.zeros((), dtype=widest(self.device), device=self.device)
        self.tally = Tally()
        #: What steps and validations compute in, on this hardware.
        self.precision = precision_on(self.device, stage.precision)

    @property
    def epoch(self) -> float:
        """Epochs done, with the fraction of the current one."""
        return self.sampler.epoch + self.sampler.position / self.sampler.steps_per_epoch

    @property
    def function_evaluations(self) -> int | None:
        """Evaluations of the dynamics so far, None of a model that solves nothing."""
        return self.model.function_evaluations if isinstance(self.model, SolvesODE) else None

    def mixed_precision(self) -> AbstractContextManager[object]:
        """Compute in bfloat16 until the block ends, where stage and hardware say so."""
        if self.precision != "bfloat16":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def gathered(self) -> AbstractContextManager[None]:
        """Have the whole model until the block ends, where each process keeps a part."""
        return self.sharded.gathered() if self.sharded is not None else nullcontext()

    # ---------------------------------------------------------------- the training loss

    def add_loss(self, loss: Float[Tensor, ""], examples: int) -> None:
        """Count a step of so many examples and its loss, which is not read yet."""
        self.loss_sum += loss.detach()
        self.tally.loss_steps += 1
        self.tally.step += 1
        self.tally.examples += examples

    def mean_train_loss(self) -> float | None:
        """Return the mean loss of the steps since the last validation; None where there are none.

        Raises:
            RunFailure: It is not finite.
        """
        if not self.tally.loss_steps:
            return None
        loss = self.loss_sum.item() / self.tally.loss_steps
        if not math.isfinite(loss):
            raise self.diverged(f"the training loss is {loss}")
        return loss

    def forget_train_loss(self) -> None:
        """Begin a new mean."""
        self.loss_sum.zero_()
        self.tally.loss_steps = 0

    def diverged(self, what: str) -> RunFailure:
        """Return the failure of a run with a number that cannot be gone on with."""
        return RunFailure(
            "diverged",
            f"{what} at step {self.tally.step}",
            "lower the learning rate (--set optimizer.lr=...) or clip gradients",
        )

    # ---------------------------------------------------------------- as a vector

    def flatten(self, spec: OptimizerSpec, vector: Float[Tensor, " parameters"]) -> None:
        """Put the parameters into a vector, and step it in their place from now on."""
        if self.optimizer is not None:
            self.flat = FlatParameters(self.model, self.optimizer, spec, vector)

    def unflatten(self) -> None:
        """Give the parameters memory of their own again, and step them one by one."""
        if self.flat is not None:
            self.flat.give_back()
        self.flat = None

    # ---------------------------------------------------------------- averaged and best

    def averaged(self) -> AbstractContextManager[None]:
        """Put the averaged parameters into the model until the block ends, if there are any."""
        return self.average.swapped_in() if self.average is not None else nullcontext()

    def restart_average(self) -> None:
        """Begin the average anew, from the parameters as they are."""
        if self.average is not None:
            self.average = ParameterAverage(self.model, self.average.decay)

    def keep_best(self) -> None:
        """Copy the parameters that were validated."""
        with self.averaged():
            state = self.model.state_dict()
            if self.best_parameters is None:
                self.best_parameters = {name: value.clone() for name, value in state.items()}
            else:
                for name, value in state.items():
                    self.best_parameters[name].copy_(value)

    def use_last(self) -> None:
        """Leave the model as it is, with the averaged parameters where there is an average."""
        if self.average is not None:
            self.average.load_into_model()

    def use_best(self) -> None:
        """Put the parameters of the best validation into the model."""
        if self.best_parameters is not None:
            self.model.load_state_dict(self.best_parameters)

    def release(self) -> None:
        """Let go of what only training needs, once the stage is over and its model chosen."""
        self.optimizer = self.average = self.best_parameters = None
        if self.sharded is not None:
            self.sharded.join()
            self.sharded = None

    # ---------------------------------------------------------------- checkpoints

    def state_dict(self) -> dict[str, Any]:
        """Return tensors and plain values that :meth:`load_state_dict` takes, not copied if large.

        Parts of a vector that holds other runs' parameters too are copied.
        """
        if self.flat is not None:
            self.flat.share_memory()
        values = self._values()
        if self.sharded is None:
            return values
        from dgm_bench.train.sharded import whole

        return cast(dict[str, Any], whole(values))

    def _values(self) -> dict[str, Any]:
        return {
            "model": self._own_values(),
            "optimizer": self.optimizer.state_dict() if self.optimizer is not None else None,
            "average": self.average.state() if self.average is not None else None,
            "best": self.best_parameters,
            "tally": asdict(self.tally),
            "loss_sum": self.loss_sum,
            "sampler": (self.sampler.epoch, self.sampler.position),
            "drops_done": self.schedule.drops_done,
            "noise": self.noise.get_state(),
            **(self.held_generators or self._generators()),
            "function_evaluations": self.function_evaluations,
        }

    def _own_values(self) -> dict[str, Tensor]:
        values = self.model.state_dict()
        return values if self.flat is None else {n: value.clone() for n, value in values.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to a state of the same stage, and torch's generators with it."""
        if self.sharded is not None:
            state = self._in_parts(state)
        self.model.load_state_dict(state["model"])
        if self.optimizer is not None:
            self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.load(state["average"])
        if state["best"] is not None:
            self.best_parameters = {name: v.to(self.device) for name, v in state["best"].items()}
        self.tally = Tally(**state["tally"])
        self.loss_sum.copy_(state["loss_sum"])
        self.sampler.seek(*state["sampler"])
        self.schedule.drops_done = state["drops_done"]
        if isinstance(self.model, SolvesODE):
            self.model.function_evaluations = state["function_evaluations"]
        self.set_noise_states(state)

    def _in_parts(self, state: dict[str, Any]) -> dict[str, Any]:
        """Return a state with what belongs to parameters in the parts that those are in."""
        from dgm_bench.train.sharded import parted_like

        named = dict(self.model.named_parameters())
        state = dict(state)
        for values in filter(None, (state["model"], state["best"])):
            values.update({n: parted_like(values[n], p) for n, p in named.items()})
        if self.average is not None:
            pairs = zip(state["average"], self.parameters, strict=True)
            state["average"] = [parted_like(value, own) for value, own in pairs]
        if self.optimizer is not None:
            own = [p for group in self.optimizer.param_groups for p in group["params"]]
            for index, memory in state["optimizer"]["state"].items():
                memory.update({n: parted_like(v, own[index]) for n, v in memory.items()})
        return state

    def noise_states(self) -> dict[str, Tensor | None]:
        """Return the states of the run's own noise and of torch's generators."""
        return {"noise": self.noise.get_state(), **self._generators()}

    def set_noise_states(self, states: dict[str, Any]) -> None:
        """Go back to states of :meth:`noise_states`."""
        self.noise.set_state(states["noise"])
        self._set_generators(states)

    def hold_generators(self) -> None:
        """Keep torch's own generators as they are now: others draw from them in between."""
        self.held_generators = self._generators()

    def resume_generators(self) -> None:
        """Let torch's own generators go on from where they were held."""
        if self.held_generators is not None:
            self._set_generators(self.held_generators)
        self.held_generators = None

    def _generators(self) -> dict[str, Tensor | None]:
        on_gpu = self.device.type != "cpu"
        return {
            "torch_rng": torch.get_rng_state(),
            "cuda_rng": torch.get_device_module(self.device).get_rng_state() if on_gpu else None,
        }

    def _set_generators(self, state: dict[str, Any]) -> None:
        torch.set_rng_state(state["torch_rng"])
        if state["cuda_rng"] is not None and self.device.type != "cpu":
            torch.get_device_module(self.device).set_rng_state(state["cuda_rng"])
