"""Batch norm of parts against that of the whole batch; the processes are threads here."""

import threading

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nao_ray.networks import synchronised, whole_batch
from nao_ray.networks.whole_batch import Part

TOTAL = 7  # 3 images and 4, or three parts of 3, 2, 2


class Adder:
    """The sum over so many threads."""

    def __init__(self, count):
        self.barrier, self.given = threading.Barrier(count, timeout=600), {}

    def of(self, rank):
        def add(value):
            self.given[rank] = value
            self.barrier.wait()
            total = sum(self.given[other] for other in sorted(self.given))
            self.barrier.wait()
            return total

        return add


def _in_parts(count, work):
    """What `work(rank, part)` gives of each part, all at once."""
    adder, results = Adder(count), {}

    def one(rank):
        results[rank] = work(rank, Part(rank, count, TOTAL, adder.of(rank)))

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(600)
    return [results[rank] for rank in range(count)]


@pytest.mark.parametrize(("count", "shape"), [(2, (5, 3, 4)), (3, (2, 1, 1))])
def test_outputs_statistics_and_gradients_are_those_of_the_whole_batch(count, shape):
    generator = torch.Generator().manual_seed(0)
    x, grad = (3 + 100 * torch.randn(TOTAL, *shape, generator=generator) for _ in range(2))
    weight, bias = (torch.randn(shape[0], generator=generator) for _ in range(2))

    whole = [tensor.clone().double().requires_grad_() for tensor in (x, weight, bias)]
    expected = F.batch_norm(whole[0], None, None, whole[1], whole[2], training=True, eps=1e-5)
    expected.backward(grad.double())

    def work(rank, part):
        given = [tensor.clone().requires_grad_() for tensor in (x[rank::count], weight, bias)]
        out, mean, variance = synchronised.batch_norm(*given, 1e-5, part)
        out.backward(grad[rank::count])
        return out.detach(), [tensor.grad for tensor in given], mean, variance

    told = _in_parts(count, work)
    for rank, (out, grads, mean, variance) in enumerate(told):
        torch.testing.assert_close(out.double(), expected.detach()[rank::count], rtol=1e-5, atol=1e-5)
        scale = whole[0].grad.abs().max().item()
        assert (grads[0].double() - whole[0].grad[rank::count]).abs().max() <= 1e-5 * scale
        torch.testing.assert_close(mean, x.mean((0, 2, 3)))
        torch.testing.assert_close(variance, x.var((0, 2, 3), correction=0))
    for at in (1, 2):
        total = sum(grads[at].double() for _, grads, _, _ in told)
        torch.testing.assert_close(total, whole[at].grad, rtol=1e-4, atol=1e-2)


def test_running_statistics_follow_the_whole_batch_and_evaluation_uses_them():
    from nao_ray.networks.fast_norm import batch_norm

    x = torch.randn(TOTAL, 4, 3, 3, generator=torch.Generator().manual_seed(1))
    whole = nn.BatchNorm2d(4)
    whole(x)

    def work(rank, part):
        norm = nn.BatchNorm2d(4)
        return synchronised.batch_norm(x[rank::2], norm.weight, norm.bias, norm.eps, part)[1:]

    (mean, variance), other = _in_parts(2, work)
    assert torch.equal(mean, other[0])
    assert torch.equal(variance, other[1])
    alone = nn.BatchNorm2d(4)
    with whole_batch.part(Part(0, 1, TOTAL, lambda value: value)):  # all of it, seen as a part
        batch_norm(alone, x)
        assert alone.num_batches_tracked == 1
        torch.testing.assert_close(alone.running_mean, whole.running_mean)
        torch.testing.assert_close(alone.running_var, whole.running_var)
        torch.testing.assert_close(batch_norm(alone.eval(), x), whole.eval()(x))


def test_what_is_drawn_of_a_part_are_the_rows_of_what_is_drawn_of_the_whole():
    def drawn(part):
        torch.manual_seed(5)
        with whole_batch.part(part):
            rows = TOTAL if part is None else len(range(part.rank, TOTAL, part.count))
            masks = whole_batch.drawn(lambda examples: torch.empty(examples, 2).bernoulli_(0.5), rows)
            return masks, whole_batch.dropout(torch.ones(rows, 6), 0.3, training=True), torch.rand(1)

    whole = drawn(None)
    for rank in range(3):
        masks, dropped, after = drawn(Part(rank, 3, TOTAL, lambda value: value))
        assert torch.equal(masks, whole[0][rank::3])
        assert torch.equal(dropped, whole[1][rank::3])
        assert torch.equal(after, whole[2])
    assert 0 < whole[1].count_nonzero() < whole[1].numel()
