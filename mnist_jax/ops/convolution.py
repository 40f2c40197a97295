"""Convolution followed by 2x2 max-pooling, as one operation with its own gradient.

XLA's CPU gradients of a convolution and of `reduce_window` take most of a
convolutional network's step. Here the four outputs in one pooling window are worked
out together from the tile of the image that they see, [h + 1, w + 1] for an h x w
kernel, by matrix products over all tiles. Their maximum is kept, with the place that
won, which is all that the gradient needs.

- 3x3 kernels by Winograd's products (Lavin and Gray, "Fast Algorithms for
  Convolutional Neural Networks", 2016): Y = A^T [(G g G^T) * (B^T d B)] A for a tile d
  and a kernel g, where * is the product at each of 16 places, for all channels a
  matrix product. 16 multiplications do for what takes 36.
- Other kernels, and images of one channel, whose products would be too thin, by the
  tiles as they are, times the kernel at each of the four places in the tile.

Images are [channels, rows, columns, images]: the slices that gather tiles step over
rows and columns and leave runs of images together.

Shapes: B images [C, H, W, B], a kernel [h, w, C, F], stride 1, no padding ("VALID");
R = (H - h + 1) // 2 times S = (W - w + 1) // 2 tiles; N = R S B.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from mnist_jax.ops.platform import apart, on_cpu

Array = jax.Array
Grid = Sequence[Sequence[Array]]  # arrays by row and column of a tile

_LAYOUT = ("CHWN", "HWIO", "CHWN")


def conv_pool(images: Array, kernel: Array) -> Array:
    """`max_pool(convolve(images, kernel))`.

    Bias and ReLU may come after it: both are monotonic, so they commute with the
    maximum, on a quarter of the values.

    Args:
      images: float32 [C, H, W, B].
      kernel: float32 [h, w, C, F].

    Returns:
      float32 [F, R, S, B].
    """
    if on_cpu():
        return _conv_pool(images, kernel)
    return max_pool(convolve(images, kernel))


def convolve(images: Array, kernel: Array) -> Array:
    """Cross-correlation without padding: [C, H, W, B] -> [F, H-h+1, W-w+1, B]."""
    return jax.lax.conv_general_dilated(
        images, kernel, (1, 1), "VALID", dimension_numbers=_LAYOUT
    )


def max_pool(maps: Array) -> Array:
    """Maximum over 2x2 windows with stride 2: [F, H, W, B] -> [F, H//2, W//2, B].

    Written as maxima of strided slices, whose gradient on CPU is much cheaper than
    that of `reduce_window`.
    """
    height, width = maps.shape[1] // 2 * 2, maps.shape[2] // 2 * 2
    a, b, c, d = (maps[:, y:height:2, x:width:2] for y in (0, 1) for x in (0, 1))
    return jnp.maximum(jnp.maximum(a, b), jnp.maximum(c, d))


@jax.custom_vjp
def _conv_pool(images: Array, kernel: Array) -> Array:
    return _forward(images, kernel)[0]


def _forward(images, kernel):
    multiply = _winograd if _is_winograd(kernel) else _direct
    outputs, saved = multiply(images, kernel)
    h, w, _, features = kernel.shape
    _, height, width, batch = images.shape
    shape = (features, (height - h + 1) // 2, (width - w + 1) // 2, batch)
    pooled, which = (x.reshape(shape) for x in outputs)
    # An empty slice carries the images' shape without keeping the images.
    return pooled, (saved, which, kernel, images[..., :0])


def _backward(residuals, grads):
    saved, which, kernel, no_images = residuals
    gradients = _winograd_gradients if _is_winograd(kernel) else _direct_gradients
    tile_grads, kernel_grad = gradients(saved, kernel, (grads, which))
    channels, height, width, _ = no_images.shape
    tile_grads = _map(lambda d: d.reshape(channels, *grads.shape[1:]), tile_grads)

    return apart(lambda tiles: _assemble(tiles, height, width), tile_grads), kernel_grad


_conv_pool.defvjp(_forward, _backward)


def _gather(images: Array, h: int, w: int) -> Grid:
    """The tiles: at each of their places the values of all tiles, [C, R, S, B]."""
    rows, columns = (images.shape[1] - h + 1) // 2, (images.shape[2] - w + 1) // 2
    return [
        [
            images[:, y : y + 2 * rows - 1 : 2, x : x + 2 * columns - 1 : 2]
            for x in range(w + 1)
        ]
        for y in range(h + 1)
    ]


def _assemble(tiles: Grid, height: int, width: int) -> Array:
    """The adjoint of `_gather`: adds up tiles [C, R, S, B] to images [C, H, W, B]."""
    channels, rows, columns, batch = tiles[0][0].shape
    # [C, H/2, 2, W/2, 2, B]: tiles are two rows apart, so that row 2i + y of all
    # tiles is row y of the pairs from the i-th on.
    pairs = (channels, -(-height // 2), 2, -(-width // 2), 2, batch)
    images = jnp.zeros(pairs, tiles[0][0].dtype)
    shape = (channels, rows, 1, columns, 1, batch)
    for y, row in enumerate(tiles):
        for x, d in enumerate(row):
            place = (0, y // 2, y % 2, x // 2, x % 2, 0)
            before = jax.lax.dynamic_slice(images, place, shape)
            images = jax.lax.dynamic_update_slice(
                images, before + d.reshape(shape), place
            )
    images = images.reshape(channels, 2 * pairs[1], 2 * pairs[3], batch)
    return images[:, :height, :width]


def _pool(outputs: Grid) -> tuple[Array, Array]:
    """The maximum of four, and which it was: int8, 2 * row + column."""
    (a, b), (c, d) = outputs
    top, bottom = jnp.maximum(a, b), jnp.maximum(c, d)
    right = jnp.where(bottom > top, d > c, b > a).astype(jnp.int8)
    return jnp.maximum(top, bottom), 2 * (bottom > top).astype(jnp.int8) + right


def _route(grads: Array, which: Array) -> Grid:
    """The adjoint of `_pool`."""
    return [[jnp.where(which == 2 * y + x, grads, 0.0) for x in (0, 1)] for y in (0, 1)]


def _direct(images: Array, kernel: Array):
    """Outputs [F, N] as `_pool` has them, and what the gradient needs."""
    h, w, _, _ = kernel.shape
    tiles = apart(lambda images: sum(_gather(images, h, w), []), images)
    patches = jnp.concatenate([_flat(d) for d in tiles])  # [(h+1)(w+1)C, N]
    outputs = _kernel_matrix(kernel) @ patches  # [4F, N]

    def pool(outputs):
        a, b, c, d = jnp.split(outputs, 4)
        return _pool(((a, b), (c, d)))

    return apart(pool, outputs), patches


def _direct_gradients(patches: Array, kernel: Array, pooled: tuple):
    """Gradients at the tiles, a grid of [C, N], and at the kernel."""
    h, w, channels, features = kernel.shape
    routed = apart(lambda *pooled: sum(_route(*pooled), []), *pooled)
    joined = jnp.concatenate([_flat(g) for g in routed])  # [4F, N]
    matrix_grad = (joined @ patches.T).reshape(2, 2, features, h + 1, w + 1, channels)
    kernel_grad = sum(
        matrix_grad[y, x, :, y : y + h, x : x + w] for y in (0, 1) for x in (0, 1)
    )
    tile_grads = (_kernel_matrix(kernel).T @ joined).reshape(h + 1, w + 1, channels, -1)
    return tile_grads, kernel_grad.transpose(1, 2, 3, 0)


def _kernel_matrix(kernel: Array) -> Array:
    """The kernel at the four places in a tile: [4F, (h+1)(w+1)C]."""
    placed = jnp.stack(
        [
            jnp.pad(kernel, ((y, 1 - y), (x, 1 - x), (0, 0), (0, 0)))
            for y in (0, 1)
            for x in (0, 1)
        ]
    )
    return placed.transpose(0, 4, 1, 2, 3).reshape(4 * kernel.shape[-1], -1)


def _is_winograd(kernel: Array) -> bool:
    return kernel.shape[:2] == (3, 3) and kernel.shape[2] > 1


def _winograd(images: Array, kernel: Array):
    """Outputs [F, N] as `_pool` has them, and what the gradient needs."""
    tiles = apart(lambda images: _both(_tile, _gather(images, 3, 3)), images)
    tiles = _map(_flat, tiles)
    kernels = _both(_kernel, kernel.transpose(0, 1, 3, 2))  # [F, C] each
    products = _map(jnp.matmul, kernels, tiles)
    pooled = apart(lambda products: _pool(_both(_output, products)), products)
    return pooled, (tiles, kernels)


def _winograd_gradients(saved: tuple[Grid, Grid], kernel: Array, pooled: tuple):
    """Gradients at the tiles, a grid of [C, N], and at the kernel."""
    tiles, kernels = saved
    routed = apart(lambda *pooled: _both(_output_adjoint, _route(*pooled)), *pooled)
    routed = _map(_flat, routed)
    kernel_grad = _map(lambda m, v: m @ v.T, routed, tiles)
    kernel_grad = jnp.array(_both(_kernel_adjoint, kernel_grad))
    tile_grads = _map(lambda u, m: u.T @ m, kernels, routed)
    tile_grads = apart(lambda grads: _both(_tile_adjoint, grads), tile_grads)
    return tile_grads, kernel_grad.transpose(0, 1, 3, 2)


def _flat(x: Array) -> Array:
    """[K, R, S, B] -> [K, N]."""
    return x.reshape(len(x), -1)


def _map(function: Callable, *grids: Grid) -> Grid:
    """`function` of the arrays at the same place."""
    return [
        [function(*arrays) for arrays in zip(*rows, strict=True)]
        for rows in zip(*grids, strict=True)
    ]


def _both(transform: Callable, grid: Grid) -> Grid:
    """`transform` along the columns, then along the rows."""
    rows = zip(*[transform(column) for column in zip(*grid, strict=True)], strict=True)
    return [transform(row) for row in rows]


def _tile(d):
    """B^T d, along one axis."""
    return d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]


def _tile_adjoint(v):
    """B v."""
    return v[0], v[1] - v[2] + v[3], v[1] + v[2] - v[0], -v[3]


def _kernel(g):
    """G g."""
    return g[0], (g[0] + g[1] + g[2]) / 2, (g[0] - g[1] + g[2]) / 2, g[2]


def _kernel_adjoint(u):
    """G^T u."""
    return u[0] + (u[1] + u[2]) / 2, (u[1] - u[2]) / 2, (u[1] + u[2]) / 2 + u[3]


def _output(m):
    """A^T m."""
    return m[0] + m[1] + m[2], m[1] - m[2] - m[3]


def _output_adjoint(y):
    """A y."""
    return y[0], y[0] + y[1], y[0] - y[1], -y[1]
