"""As accurate as a few hundred parameters can be."""

import flax.linen as nn
import jax

from mnist_jax.models.layers import Dense
from mnist_jax.models.registry import register
from mnist_jax.ops.convolution import conv_pool
from mnist_jax.ops.depthwise import depthwise

Array = jax.Array

_FIRST, _FEATURES = 6, 8
_DILATIONS = (1, 1, 2, 4)


class DilatedSeparable(nn.Module):
    """3x3 convolution of each map by itself, a matmul over maps, bias and ReLU.

    As in MobileNets (Howard et al., 2017): [C, H, W, B] -> [features, H, W, B]. The
    taps are `dilation` places apart, or as many as the maps have room for.
    """

    features: int
    dilation: int

    @nn.compact
    def __call__(self, maps: Array) -> Array:
        channels, *sides, _ = maps.shape
        of_a_map = nn.initializers.variance_scaling(
            1, "fan_in", "normal", (1, 2), (), 0
        )
        kernel = self.param("kernel", of_a_map, (channels, 3, 3))
        mixing = self.param(
            "mixing", nn.initializers.he_normal(1, 0), (self.features, channels)
        )
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        own = depthwise(maps, kernel, min(self.dilation, max(*sides, 2) - 1))
        mixed = mixing @ own.reshape(channels, -1)
        mixed = nn.relu(mixed + bias[:, None])
        return mixed.reshape(self.features, *own.shape[1:])


@register("tiny")
class Tiny(nn.Module):
    """A convolution with pooling and four separable ones: 692 parameters.

    The last three add to what they read (He et al., 2016), and the last two are
    dilated (Yu and Koltun, 2016), so that the middle of 28 x 28 pixels sees all others.
    Inside, maps come first and images last: [maps, rows, columns, B].
    """

    num_classes: int

    @nn.compact
    def __call__(self, images: Array, keys: Array | None = None) -> Array:
        kernel = self.param("kernel", nn.initializers.he_normal(), (3, 3, 1, _FIRST))
        bias = self.param("bias", nn.initializers.zeros, (_FIRST,))
        maps = conv_pool(images.transpose(1, 2, 3, 0), kernel) + bias[:, None]
        x = nn.relu(maps).transpose(2, 0, 1, 3)
        for i, dilation in enumerate(_DILATIONS):
            added = DilatedSeparable(_FEATURES, dilation)(x)
            x = x + added if i else added
        return Dense(self.num_classes)(x.mean((1, 2)).T)
