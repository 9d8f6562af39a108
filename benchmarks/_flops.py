"""How many floating-point operations a LoRA step of a Llama-shaped decoder needs; a multiply-add counts two.

For one example of T tokens, S of them supervised, width D, inner width I, depth L, vocabulary V, and adapters of rank R
on some of the linear layers W [O, Din] of each block (four of D x D, three of D x I):

    frozen, forward            2 T sum(O Din)              all linear layers
    frozen, backward           2 T sum(O Din)              where an adapter lies before the layer's input
    adapters, forward          2 T R sum(O + Din)
    adapters, factor gradients 2 T R sum(O + Din)
    adapters, backward         2 T R sum(O), and 2 T R sum(Din) where an adapter lies before the input
    attention, forward         2 T (T + 1) D               scores and values, half of T x T as it is causal
    attention, backward        4 T (T + 1) D               less in the first block, whose inputs are frozen
    logits                     2 S D V forward, 2 S D V backward (the head is frozen)

Nothing is counted for embeddings, norms, activations, softmax, optimiser, nor for anything done twice, padded or
computed where nothing is supervised: those make the achieved figure lower, as they should.
"""

from collections.abc import Sequence

from benchmarks._shapes import Shape

__all__ = ["attention_flops", "layer_widths", "step_flops"]

# In the order in which they are computed; those of one stage have the same input.
_STAGES = (("q_proj", "k_proj", "v_proj"), ("o_proj",), ("gate_proj", "up_proj"), ("down_proj",))


def layer_widths(shape: Shape) -> dict[str, tuple[int, int]]:
    """Return (input, output) width of the linear layers of one block, in the order in which they are computed."""
    square, up = (shape.width, shape.width), (shape.width, shape.inner)
    grouped = (shape.width, shape.width * (shape.groups or shape.heads) // shape.heads)
    return {
        "q_proj": square,
        "k_proj": grouped,
        "v_proj": grouped,
        "o_proj": square,
        "gate_proj": up,
        "up_proj": up,
        "down_proj": (shape.inner, shape.width),
    }


def step_flops(shape: Shape, *, lengths: Sequence[int], supervised: int) -> float:
    """Return the operations of one step over examples of these lengths, `supervised` tokens learnt in all."""
    linear = sum(_linear(shape, first=depth == 0) for depth in range(shape.depth))
    pairs = sum(length * (length + 1) // 2 for length in lengths)
    logits = 4 * supervised * shape.width * shape.vocabulary
    return float(sum(lengths) * linear + attention_flops(shape, pairs=pairs) + logits)


def attention_flops(shape: Shape, *, pairs: int) -> float:
    """Return the operations of attention over so many pairs of tokens: forward 4 D for each, backward up to 8 D."""
    products = sum(_attention_products(shape, first=depth == 0) for depth in range(shape.depth))
    return float(2 * products * shape.width * pairs)


def _linear(shape: Shape, *, first: bool) -> int:
    """Return operations per token of the linear layers of a block and their adapters."""
    total = 0
    for name, (width_in, width_out) in layer_widths(shape).items():
        has_gradient = not first or _behind_adapter(name, shape.targets)
        total += 2 * width_in * width_out * (1 + has_gradient)
        if name in shape.targets:
            total += 4 * shape.rank * (width_in + width_out)
            total += 2 * shape.rank * (width_out + width_in * has_gradient)
    return total


def _behind_adapter(name: str, targets: Sequence[str]) -> bool:
    """Return whether in the first block an adapter lies before the input of a layer."""
    stage = next(number for number, names in enumerate(_STAGES) if name in names)
    return any(target in names for names in _STAGES[:stage] for target in targets)


def _attention_products(shape: Shape, *, first: bool) -> int:
    """Return the products of a block's attention over pairs: two forward, one for each gradient needed backward."""
    query, key, value = (not first or name in shape.targets for name in ("q_proj", "k_proj", "v_proj"))
    weights = query or key  # to reach queries or keys, the gradient passes through the attention weights
    return 2 + query + key + value + weights
