"""Random preference pairs as tokens, and the loss of one by itself without anything of ours."""

import torch
from torch.nn.functional import logsigmoid

from fedloom.base import rng
from fedloom.contracts.language import Encoded
from support.clients import asked, logits_alone
from support.models import VOCABULARY


def pair(prompt, chosen, rejected, *names, reference=(-3.0, -4.0)):
    """A pair of sequences of random tokens with a common prompt; the answers are supervised."""
    draw = rng.generator("pairs", prompt, chosen, rejected, *names)

    def tokens(n):
        return torch.randint(3, VOCABULARY - 1, (n,), generator=draw, dtype=torch.int32)

    start = tokens(prompt)
    parts = [torch.cat((start, tokens(n))) for n in (chosen, rejected)]
    learnt = [torch.arange(len(part)) >= prompt for part in parts]
    return Encoded(torch.cat(parts), torch.cat(learnt), cuts=(len(parts[0]),), reference=reference)


def sequences(item):
    """The two sequences of a pair as examples of their own."""
    cut = item.cuts[0]
    spans = (slice(0, cut), slice(cut, len(item.tokens_T)))
    return [Encoded(item.tokens_T[span], item.supervised_T[span]) for span in spans]


def sums_alone(module, params, item):
    """The summed log-probability of either answer, each from a pass by itself."""
    found = []
    for one in sequences(item):
        log_SV = logits_alone(module, params, one).float().log_softmax(1)
        found.append(log_SV.gather(1, asked(one)[1][:, None]).sum())
    return found


def pair_loss_alone(module, params, item, *, beta=0.1, variant="sigmoid", smoothing=0.0):
    """The loss of a pair, written down from the papers."""
    chosen, rejected = (s - r for s, r in zip(sums_alone(module, params, item), item.reference, strict=True))
    if variant == "ipo":
        n_chosen, n_rejected = (int(one.supervised_T.sum()) for one in sequences(item))
        return (chosen / n_chosen - rejected / n_rejected - 1 / (2 * beta)) ** 2
    h = beta * (chosen - rejected)
    return -(1 - smoothing) * logsigmoid(h) - smoothing * logsigmoid(-h)


def pair_gradient_alone(module, params, item, **options):
    """The gradient of a pair's loss as one row [P], in the order of the parameters."""
    leaves = {name: tensor.detach().clone().requires_grad_() for name, tensor in params.items()}
    grads = torch.autograd.grad(pair_loss_alone(module, leaves, item, **options), list(leaves.values()))
    return torch.cat([grad.flatten() for grad in grads])
