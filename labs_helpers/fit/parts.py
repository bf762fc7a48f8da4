"""How a batch is cut so that each part of it fits into memory.

The parts' gradients add up to the batch's, so that only rounding tells how many there
were. What does not fit by measure is cut smaller before it is tried; what does not fit
in fact is cut into halves and tried again.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import torch
from torch import Tensor, nn

from labs_helpers.fit.run import Run, TrainingStopped, everyones, processes
from labs_helpers.models import memory

T = TypeVar("T")
STATE_BYTES = 12  # of a trained weight: its gradient, and AdamW's two means


class Parts:
    """Cuts the batches of one run.

    Where a single row does not fit, the layers are set to compute again, in the
    backward pass, what it needs of them; `undo` sets them back.

    Args:
        readers: the models that read each row with gradient.
        longest: tokens of the longest row.
        sequences: of a row; 2 for a pair whose answers are read apart.
        mode: the one that the readers are in as they are trained.
    """

    def __init__(
        self,
        run: Run,
        readers: Sequence[nn.Module],
        longest: int,
        sequences: int = 1,
        mode: Callable[[], AbstractContextManager] = nullcontext,
    ):
        self.run, self.readers, self.sequences = run, readers, sequences
        self.mode = mode
        self.recomputes = self.several = False
        room = memory.free_bytes(run.device)
        self.state = STATE_BYTES * sum(p.numel() for p in run.trained.values())
        if run.device.type == "cuda":
            room -= self.state
        self.room = min(everyones(room))
        self._measure()
        if self.needed(1, longest) > self.room:
            self._recompute(longest)

    def needed(self, rows: int, length: int) -> float:
        """Bytes that a part of so many rows, padded to a length, takes."""
        return sum(f.rows(rows * self.sequences, length) for f in self.footprints)

    def of(
        self,
        lengths: Sequence[int],
        at_least: int = 1,
        beside: Sequence[int] | None = None,
    ) -> list[list[int]]:
        """The rows of each part, by their numbers; see `in_parts`."""

        def fits(rows: int, length: int) -> bool:
            return self.needed(rows, length) <= self.room

        cut = memory.in_parts(lengths, at_least, fits, beside)
        needed = [
            (len(part), self.needed(len(part), max(lengths[row] for row in part)))
            for part in cut
        ]
        self.several = len(cut) > 1
        self.largest = max((size for _, size in needed), default=0.0)
        # A single row cannot be cut.
        self.divisible = max((size for rows, size in needed if rows > 1), default=0.0)
        return cut

    def backward(self, loss: Tensor, inputs: list[nn.Parameter] | None = None) -> None:
        """Add a part's gradient, and leave the next part no holes in its place."""
        self.run.backward(loss, inputs)
        if self.several and any(footprint.lost for footprint in self.footprints):
            memory.give_back()

    @property
    def peak(self) -> float:
        """Bytes of the last batch's step, beside the model's weights."""
        return self.state + self.largest

    def trying(self, step: Callable[[], T]) -> T:
        """Do what adds to the gradient; where memory runs out, again in smaller parts.

        Raises:
            TrainingStopped: single rows do not fit either.
        """
        while True:
            try:
                return step()
            except Exception as error:
                # What others have added up by then would have to be taken back.
                if not memory.is_out_of_memory(error) or processes().num_processes > 1:
                    raise
            self._halve()

    def undo(self) -> None:
        """Set the readers back to what they were."""
        if self.recomputes:
            for reader in self.readers:
                memory.recompute(memory.language_model(reader), on=False)

    def _measure(self) -> None:
        with self.mode(), self.run.autocast:
            found = [memory.footprint(reader) for reader in self.readers]
        self.footprints = [each for each in found if each is not None]

    def _recompute(self, longest: int) -> None:
        self.recomputes = True
        for reader in self.readers:
            memory.recompute(memory.language_model(reader))
        self._measure()
        print(
            f"Rows of up to {longest} tokens do not fit into {self.room / 2**30:.1f} "
            "GB as they are: layers are computed again in the backward pass (gradient "
            "checkpointing), which takes a fifth more time"
        )

    def _halve(self) -> None:
        if not self.divisible:
            raise TrainingStopped(
                "memory runs out even for one row at a time: leave out long rows "
                "(max_length), take LoRA (lora=8) or a smaller model, or close what "
                "else uses the memory"
            )
        self.room = self.divisible / 2
        self.run.free()
        if self.run.device.type == "cuda":
            torch.cuda.empty_cache()
        print(
            f"Memory ran out in {self.run.of} {self.run.step + 1}: it is taken again "
            "in parts half as large, which is the same but for rounding"
        )
