"""3x3 convolution by Winograd's algorithm, on CPU (Lavin and Gray, "Fast Algorithms
for Convolutional Neural Networks", 2016).

The 5x5 outputs of a tile d [7, 7] for a kernel g are A^T [(G g G^T) * (B^T d B)] A,
where * is the product at each of 49 places, for all channels a matmul: 49 MACs
instead of 225. The matrices evaluate polynomials at six points and at infinity (Cook
and Toom), and cost accuracy: outputs are within 1e-5 of the largest. Operands of 16
bits would be 4% off, so that these matmuls are always of float32.

Each transform is two elementwise loops, one over rows and one over columns. Axes are
ordered such that what a loop reads again lies in a core's cache.

Shapes: images [H, W, C, B] with H = 5R + 2 and W = 5S + 2, so that R x S tiles cover
them, five rows and columns apart; kernels [3, 3, C, F].
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from mnist_jax.ops.platform import fusion_barrier

Array = jax.Array

STEP = 5  # outputs of a tile, along each axis
_SIDE = STEP + 2  # of a tile
_POINTS = (0, 1, -1, 1 / 2, -1 / 2, 2)


def _matrices() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A^T [5, 7], G [7, 3] and B^T [7, 7]."""
    points = np.array(_POINTS)
    others = [np.delete(points, i) for i in range(len(points))]
    norms = [np.prod(a - rest) for a, rest in zip(points, others, strict=True)]
    # The last row of each stands for infinity.
    a = np.vstack([np.vander(points, STEP, increasing=True), np.eye(STEP)[-1]])
    g = np.vstack([np.vander(points, 3, increasing=True), np.eye(3)[-1]])
    g[:-1] /= np.array(norms)[:, None]
    b = np.vstack([np.append(np.poly(x)[::-1], 0) for x in others] + [np.zeros(_SIDE)])
    b[-1] = np.poly(points)[::-1]
    # Powers of two, which round nothing, keep all about the same size.
    scale = 2.0 ** np.round(np.log2(np.abs(b).max(1, keepdims=True)))
    return a.T, g * scale, b / scale


_A, _G, _B = _matrices()  # A^T, G, B^T
_KERNEL = np.float32(np.kron(_G, _G))  # [49, 9], of a kernel's places end to end


@jax.custom_vjp
def convolve(images: Array, kernel: Array) -> Array:
    """Cross-correlation without padding: [H, W, C, B] -> [5R, 5S, F, B], float32."""
    return _forward(images, kernel)[0]


def _forward(images, kernel):
    height, width, channels, batch = images.shape
    rows, columns, features = height // STEP, width // STEP, kernel.shape[-1]

    def transform_rows(images):  # -> [R, 7, W, C, B]
        return _combine(_B, lambda i: images[_every(i, rows)], 1)

    def transform_columns(half):  # -> [7, 7, C, R, S, B]
        return _combine(
            _B, lambda j: half[:, :, _every(j, columns)].transpose(1, 3, 0, 2, 4), 1
        )

    tiles = fusion_barrier(transform_rows, images)
    tiles = fusion_barrier(transform_columns, tiles)
    tiles = tiles.reshape(_SIDE**2, channels, -1)
    kernels = _KERNEL @ kernel.transpose(0, 1, 3, 2).reshape(9, -1)
    kernels = kernels.reshape(_SIDE**2, features, channels)
    products = (kernels @ tiles).reshape(_SIDE, _SIDE, features, rows, columns, batch)

    def output_columns(products):  # -> [7, 5, F, R, S, B]
        return _combine(_A, lambda j: products[:, j], 1)

    def output_rows(half):  # -> [R, 5, S, 5, F, B]
        return _combine(_A, lambda i: half[i].transpose(2, 3, 0, 1, 4), 1)

    outputs = fusion_barrier(output_rows, fusion_barrier(output_columns, products))
    outputs = outputs.reshape(STEP * rows, STEP * columns, features, batch)
    return outputs, (tiles, kernels)


def _backward(saved, grads):
    tiles, kernels = saved
    rows, columns = (n // STEP for n in grads.shape[:2])
    _, features, channels = kernels.shape
    batch = grads.shape[-1]

    def transform_rows(grads):  # -> [R, 7, 5S, F, B]
        return _combine(_A.T, lambda i: grads[i::STEP], 1)

    def transform_columns(half):  # -> [7, 7, F, R, S, B]
        return _combine(_A.T, lambda j: half[:, :, j::STEP].transpose(1, 3, 0, 2, 4), 1)

    products = fusion_barrier(transform_columns, fusion_barrier(transform_rows, grads))
    products = products.reshape(_SIDE**2, features, -1)
    kernel_grad = jnp.einsum("tfn,tcn->tfc", products, tiles).reshape(_SIDE**2, -1)
    kernel_grad = (_KERNEL.T @ kernel_grad).reshape(3, 3, features, channels)
    tile_grads = jnp.einsum("tfc,tfn->tcn", kernels, products)
    tile_grads = tile_grads.reshape(_SIDE, _SIDE, channels, rows, columns, batch)

    def columns_of_tiles(tile_grads):  # -> [7, R, S, 7, C, B]
        return _combine(_B.T, lambda j: tile_grads[:, j].transpose(0, 2, 3, 1, 4), 3)

    def rows_of_tiles(half):  # -> [R, 7, W, C, B]
        return _combine(_B.T, lambda i: half[i], 1)

    half = fusion_barrier(columns_of_tiles, tile_grads)
    half = fusion_barrier(lambda half: _add_overlapping(half, 2), half)
    images_grad = fusion_barrier(rows_of_tiles, half)
    images_grad = fusion_barrier(lambda x: _add_overlapping(x, 0), images_grad)
    return images_grad, kernel_grad.transpose(0, 1, 3, 2)


convolve.defvjp(_forward, _backward)


def _combine(matrix: np.ndarray, term: Callable[[int], Array], axis: int) -> Array:
    """`matrix` times the arrays `term(k)`: a sum over k, whose rows lie on `axis`."""
    terms = [jnp.expand_dims(term(k), axis) for k in range(matrix.shape[1])]
    shape = (-1,) + (1,) * (terms[0].ndim - 1 - axis)
    return sum(
        np.float32(column).reshape(shape) * x
        for column, x in zip(matrix.T, terms, strict=True)
    )


def _every(first: int, count: int) -> slice:
    """The index `first` of so many tiles."""
    return slice(first, first + STEP * (count - 1) + 1, STEP)


def _add_overlapping(tiles: Array, axis: int) -> Array:
    """Tiles [.., T, 7, ..], with T on `axis`, added up to [.., 5T + 2, ..]."""
    count = tiles.shape[axis]
    own = jax.lax.slice_in_dim(tiles, 0, STEP, axis=axis + 1)
    of_next = jax.lax.slice_in_dim(tiles, STEP, _SIDE, axis=axis + 1)
    after, before = ([(0, 0)] * tiles.ndim for _ in range(2))
    after[axis] = (0, 1)
    before[axis : axis + 2] = (1, 0), (0, STEP - 2)
    total = jnp.pad(own, after) + jnp.pad(of_next, before)
    shape = (*tiles.shape[:axis], -1, *tiles.shape[axis + 2 :])
    return jax.lax.slice_in_dim(total.reshape(shape), 0, STEP * count + 2, axis=axis)
