"""How many floating-point operations a LoRA step of a Llama-shaped decoder needs; a multiply-add counts two.

For one example of T tokens, S of them supervised, width D, inner width I, depth L, vocabulary V, and adapters of rank R
on some of the linear layers W [O, Din] of each block (four of D x D, three of D x I):

    frozen, forward            2 T sum(O Din)              all linear layers
    frozen, backward           2 T sum(O Din)              where the input has a gradient: there is an adapter before it
    adapters, forward          2 T R sum(O + Din)
    adapters, factor gradients 2 T R sum(O + Din)
    adapters, backward         2 T R sum(O) + 2 T R sum(Din) the latter where the input has a gradient
    attention, forward         2 T (T + 1) D               scores and values, half of T x T as it is causal
    attention, backward        4 T (T + 1) D               two products for each of the forward's two
    logits                     2 S D V forward, 2 S D V backward (the head is frozen)

Nothing is counted for embeddings, norms, activations, softmax, optimiser, nor for anything done twice, padded or
computed where nothing is supervised: those make the achieved figure lower, as they should.
"""

from collections.abc import Sequence

from benchmarks._shapes import Shape

__all__ = ["layer_widths", "step_flops"]


def layer_widths(shape: Shape) -> dict[str, tuple[int, int]]:
    """Return (input, output) width of the linear layers of one block, in the order in which they are computed."""
    square, up = (shape.width, shape.width), (shape.width, shape.inner)
    return {
        "q_proj": square,
        "k_proj": square,
        "v_proj": square,
        "o_proj": square,
        "gate_proj": up,
        "up_proj": up,
        "down_proj": (shape.inner, shape.width),
    }


def step_flops(shape: Shape, *, lengths: Sequence[int], supervised: int) -> float:
    """Return the operations of one step over examples of these lengths, `supervised` tokens learnt in all."""
    tokens = sum(lengths)
    forward, backward, factors = _linear(shape)
    attention = sum(2 * length * (length + 1) * shape.width for length in lengths) * shape.depth
    logits = 2 * supervised * shape.width * shape.vocabulary
    return float(tokens * (forward + backward + factors) + 3 * attention + 2 * logits)


def _linear(shape: Shape) -> tuple[int, int, int]:
    """Return operations per token: frozen weights forward, frozen weights backward, adapters."""
    forward = backward = adapters = 0
    for depth in range(shape.depth):
        for name, (width_in, width_out) in layer_widths(shape).items():
            # The first block's attention inputs come from the frozen embedding.
            has_gradient = depth > 0 or name not in ("q_proj", "k_proj", "v_proj")
            forward += 2 * width_in * width_out
            backward += 2 * width_in * width_out * has_gradient
            if name in shape.targets:
                adapters += 4 * shape.rank * (width_in + width_out)
                adapters += 2 * shape.rank * (width_out + width_in * has_gradient)
    return forward, backward, adapters
